/** A backup of the files of a server is put back under a cluster: real processes, a real server, real files. */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, type Redacted, Redacted as Secret, Scope } from "effect"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as LocalCluster from "../src/LocalCluster.js"
import { orrery, orreryHere } from "./orrery.js"

const handlers = fileURLToPath(new URL("../../examples/src/hello.ts", import.meta.url))

const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const made = mkdtempSync(path.join(tmpdir(), "orrery-restore-"))
    // The server may run as another user.
    chmodSync(made, 0o755)
    return made
  }),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

/** With the owners of the files: the server may run as another user. */
const copy = (from: string, to: string) => execFileSync("cp", ["-a", from, to])

/** While the server is up. */
const withServer = <A, E>(
  dataDir: string,
  use: (url: Redacted.Redacted<string>) => Effect.Effect<A, E, Scope.Scope>
) =>
  Effect.scoped(
    Effect.flatMap(EmbeddedPostgres.start({ dataDir, durable: false }), (server) => Effect.scoped(use(server.url)))
  )

it.scopedLive(
  "a restored backup is refused until an operator accepts it, and works after that",
  () =>
    Effect.gen(function*() {
      const top = yield* folder
      const [dataDir, backup, state] = ["data", "backup", "state"].map((name) => path.join(top, name))
      const env = { ORRERY_STATE_DIR: state! }
      const envOf = (url: Redacted.Redacted<string>) => ({ ...env, ORRERY_DATABASE_URL: Secret.value(url) })
      const cluster = (databaseUrl: Redacted.Redacted<string>) =>
        LocalCluster.start({ databaseUrl, nodes: 1, handlers, env })
      const greet = (url: Redacted.Redacted<string>) =>
        Effect.gen(function*() {
          const made = yield* orreryHere(
            envOf(url),
            "enqueue",
            "hello",
            "--queue",
            "hello",
            "--payload",
            "{\"name\":\"you\"}"
          )
          return yield* orreryHere(envOf(url), "runs", "await", made.out, "--json")
        })

      yield* withServer(dataDir!, (url) => Effect.zipRight(cluster(url), greet(url)))
      copy(dataDir!, backup!)
      // The cluster goes on: partitions are taken over once more.
      yield* withServer(dataDir!, (url) => Effect.zipRight(cluster(url), greet(url)))
      rmSync(dataDir!, { recursive: true, force: true })
      copy(backup!, dataDir!)

      yield* withServer(dataDir!, (url) =>
        Effect.gen(function*() {
          const refused = yield* orrery(envOf(url), "node", "--handlers", handlers)
          assert.strictEqual(refused.code, 1)
          assert.include(refused.err, "this database is not the one it was (the state file of this node remembers")
          assert.include(refused.err, "orrery migrate --accept-restore")
          // Also a node that remembers nothing.
          const other = yield* orrery({ ORRERY_DATABASE_URL: Secret.value(url) }, "node", "--handlers", handlers)
          assert.strictEqual(other.code, 1)

          const accepted = yield* orrery(envOf(url), "migrate", "--accept-restore")
          assert.strictEqual(accepted.code, 0, accepted.err)
          const scope = yield* Scope.make()
          yield* Scope.extend(cluster(url), scope)
          const busy = yield* orreryHere(envOf(url), "migrate", "--accept-restore")
          assert.strictEqual(busy.code, 1)
          assert.include(busy.err, "1 nodes are at work on this database")
          const run = yield* greet(url)
          assert.strictEqual(JSON.parse(run.out).result, "hello you")
          yield* Scope.close(scope, Exit.void)
        }))
    }),
  180_000
)
