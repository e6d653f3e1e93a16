import * as LocalCluster from "@orrery/cli/LocalCluster"
import { assert, layer } from "@effect/vitest"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { Context, Effect, Layer, Redacted } from "effect"
import { fileURLToPath } from "node:url"
import { type Answer, orrery, orreryHere } from "./orrery.js"

const fileOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const handlers = fileOf("../../examples/src/hello.ts")

class Rig extends Context.Tag("@orrery/cli/test/Cli/Rig")<Rig, {
  readonly env: Record<string, string>
  readonly migrated: Answer
  readonly cluster: LocalCluster.LocalCluster
}>() {}

const rig = Layer.scoped(
  Rig,
  Effect.gen(function*() {
    const databaseUrl = yield* TestPostgres.freshDatabase
    const env = { ORRERY_DATABASE_URL: Redacted.value(databaseUrl) }
    const migrated = yield* orrery(env, "migrate")
    return { env, migrated, cluster: yield* LocalCluster.start({ databaseUrl, nodes: 1, handlers }) }
  })
)

layer(rig, { excludeTestServices: true, timeout: 60_000 })("orrery", (it) => {
  it.effect("bounds what waits in a queue, says so, and takes it back", () =>
    Effect.gen(function*() {
      const { env } = yield* Rig
      const queues = (...args: ReadonlyArray<string>) => orreryHere(env, "queues", ...args)
      const nobodys = ["enqueue", "nobodys", "--queue", "deep"]
      const enqueue = orreryHere(env, ...nobodys)

      const set = yield* queues("set-limit", "deep", "--max-depth", "1", "--max-depth-per-tenant", "1", "--by", "ann")
      const first = yield* enqueue
      const full = yield* orrery(env, ...nobodys)
      const alone = yield* queues("set-limit", "deep", "--max-depth-per-tenant", "1")
      const above = yield* queues("set-limit", "deep", "--max-depth", "1", "--max-depth-per-tenant", "2")
      const named = yield* queues("set-limit", "deep", "--max-depth", "1", "--name", "api")
      const reset = yield* queues("reset-limits", "deep")
      const second = yield* enqueue

      assert.deepStrictEqual([set.code, first.code, reset.code, second.code], [0, 0, 0, 0], set.err + second.err)
      assert.include(set.out, "max depth 1, per tenant 1")
      assert.strictEqual(full.code, 69)
      assert.include(full.err, "is full (maxDepth 1, 1 runs)")
      assert.deepStrictEqual([alone.code, above.code, named.code], [1, 1, 1])
      assert.include(alone.err, "--max-depth-per-tenant must be absent without --max-depth")
      assert.include(above.err, "backlog.maxDepthPerTenant must be at most backlog.maxDepth, 1")
      assert.include(named.err, "--max-depth must be absent with --name")
    }))

  it.effect("finds the nodes by the database, makes runs, waits for them, cancels them; the node ends when it is told to", () =>
    Effect.gen(function*() {
      const { cluster, env, migrated } = yield* Rig
      assert.strictEqual(migrated.code, 0)

      const made = yield* orrery(env, "enqueue", "hello", "--queue", "hello", "--payload", "{\"name\":\"you\"}")
      const awaited = yield* orrery(env, "runs", "await", made.out, "--json")
      const long = yield* orrery(
        env,
        "enqueue",
        "sleep",
        "--queue",
        "hello",
        "--payload",
        "{\"ms\":600000}",
        "--delay",
        "600000"
      )
      const cancelled = yield* orrery(env, "runs", "cancel", long.out)
      const ended = yield* orrery(env, "runs", "await", long.out)

      assert.strictEqual(awaited.code, 0)
      assert.strictEqual(JSON.parse(awaited.out).result, "hello you")
      assert.strictEqual(cancelled.out, "cancelled")
      assert.strictEqual(ended.code, 1)
      assert.match(ended.err, /run \S+ cancelled/)
      yield* cluster.nodes[0]!.stop
      const [node] = [yield* cluster.nodes[0]!.ended]
      assert.strictEqual(node.code, 0)
    }))

  it.effect("says which cluster it lacks, and which setting is wrong", () =>
    Effect.gen(function*() {
      const { none, wrong } = yield* Effect.all({
        none: orreryHere({}, "runs", "list"),
        wrong: orrery({ ORRERY_WORKER_SLOTS: "many", ORRERY_HOST: "0.0.0.0" }, "node")
      }, { concurrency: 2 })

      assert.deepStrictEqual([none.code, wrong.code], [1, 1])
      assert.match(none.err, /ORRERY_NODES or ORRERY_DATABASE_URL/)
      for (const name of ["ORRERY_DATABASE_URL", "ORRERY_WORKER_SLOTS", "ORRERY_HOST"]) assert.include(wrong.err, name)
    }))
})
