import { assert, it } from "@effect/vitest"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Effect } from "effect"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const made = mkdtempSync(join(tmpdir(), "orrery-restart-"))
    // The server may run as another user.
    chmodSync(made, 0o755)
    return made
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

it.scopedLive(
  "goes on by itself after the database was restarted, twice, and loses nothing",
  () =>
    Effect.gen(function*() {
      const server = yield* EmbeddedPostgres.start({ dataDir: join(yield* folder, "data") })
      const { cluster, load } = yield* ClusterRig.start({ databaseUrl: server.url })
      const { allServed, settle } = yield* load
      yield* allServed
      const before = yield* Effect.forEach(cluster.nodes, (node) => node.pid)

      yield* server.restart("immediate")
      yield* allServed
      yield* server.restart("fast")
      yield* allServed

      const verdict = yield* settle
      assert.deepStrictEqual({ lost: verdict.lost, doubled: verdict.doubled, failed: verdict.failed }, {
        lost: 0,
        doubled: 0,
        failed: 0
      })
      assert.deepStrictEqual(yield* Effect.forEach(cluster.nodes, (node) => node.pid), before)
    }),
  180_000
)
