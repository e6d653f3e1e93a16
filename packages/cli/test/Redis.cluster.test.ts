import { Signals } from "@orrery/core/Signals"
import { assert, describe, it } from "@effect/vitest"
import * as Redis from "@orrery/signals-redis/Redis"
import { Context, Effect, Layer, Redacted, Stream } from "effect"
import { mostInWindow } from "../../testing/src/limitSamples.js"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as RedisServer from "../../testing/src/RedisServer.js"
import { guardedClosed, guardedOpen, guardedRate, ticks } from "../../testing/src/rigTasks.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { orreryHere } from "./orrery.js"

const tick = ticks[0]!
/** By how much the clock of the owner, as it estimates that of the database, may move, ms. */
const wayMs = 40

describe("nodes with a Redis", () => {
  it.scopedLive(
    "tell who watches from elsewhere, say how it is, and go on without it; limits as they declare",
    () =>
      Effect.gen(function*() {
        const redis = yield* RedisServer.start({})
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, cluster, query } = yield* ClusterRig.start({
          databaseUrl,
          nodes: 1,
          workers: 0,
          env: { ORRERY_REDIS_URL: Redacted.value(redis.url) }
        })
        const enqueue = (task: typeof guardedOpen, count: number) =>
          Effect.provide(task.enqueueMany(Array.from({ length: count }, (_, n) => ({ n, key: "k", ms: 1 }))), client)
        const endedOf = (task: { readonly name: string }) =>
          Effect.map(
            query<{ at: string; state: number }>(
              "select started_at as at, state from orrery.run_history where task = $1",
              [
                task.name
              ]
            ),
            (rows) => rows.map(({ at, state }) => ({ at: Number(at), isDone: state === 5 }))
          )
        const allEnded = (task: { readonly name: string }, count: number) =>
          ClusterRig.eventually(endedOf(task), (rows) => rows.length >= count)
        const elsewhere = Context.get(yield* Layer.build(Redis.layer({ url: redis.url })), Signals)
        const ended = new Set<string>()
        const stream = yield* elsewhere.watch({ namespace: tick.namespace, queue: tick.queue })
        yield* Stream.runForEach(stream, (item) =>
          Effect.sync(() => {
            if (item._tag === "gap") return
            for (const { id, state } of item.events) if (state === "succeeded") ended.add(id)
          })).pipe(Effect.forkScoped)
        const health = Effect.map(
          orreryHere({ ORRERY_NODES: cluster.addresses.join(",") }, "nodes"),
          ({ code, out }) => `${code} ${out}`
        )

        // The first may be what the node keeps to itself, as it does not know of the watcher yet.
        yield* Effect.provide(tick.execute({ n: 0 }), client)
        yield* Effect.sleep("500 millis")
        const ids = yield* Effect.provide(tick.enqueueMany([{ n: 1 }, { n: 2 }, { n: 3 }]), client)
        yield* ClusterRig.eventually(Effect.sync(() => ids.filter((id) => ended.has(id)).length), (all) => all === 3)
        const well = yield* health
        yield* enqueue(guardedClosed, 10)
        yield* enqueue(guardedOpen, 10)
        yield* allEnded(guardedClosed, 10)
        yield* allEnded(guardedOpen, 10)
        yield* redis.stop("SIGKILL")
        const answer = yield* Effect.provide(tick.execute({ n: 7 }), client)
        const away = yield* ClusterRig.eventually(health, (line) => line.includes("away"))
        const [held] = yield* enqueue(guardedClosed, 20)
        yield* enqueue(guardedOpen, 20)
        yield* allEnded(guardedOpen, 30)
        const heldBack = yield* endedOf(guardedClosed)
        const why = yield* Effect.provide(guardedClosed.explain(held!), client)
        const back = performance.timeOrigin + performance.now()
        yield* RedisServer.start({
          port: redis.port,
          password: Redacted.make(new URL(Redacted.value(redis.url)).password)
        })
        const closed = yield* allEnded(guardedClosed, 30)
        yield* enqueue(guardedOpen, 10)
        const open = yield* allEnded(guardedOpen, 40)

        assert.strictEqual(answer, 8)
        assert.match(well, /^0 .*redis connected/)
        // It is ready all the same.
        assert.match(away, /^0 .*redis away: /)
        assert.strictEqual(heldBack.length, 10)
        assert.deepInclude(why.reason, { _tag: "RateLimited" })
        assert.include(JSON.stringify(why.reason), "unavailable")
        assert.isTrue([...closed, ...open].every(({ isDone }) => isDone))
        const { limit, perMs } = guardedRate
        assert.isAtMost(mostInWindow(closed.map(({ at }) => at), perMs - wayMs), limit)
        assert.isAtMost(mostInWindow(open.map(({ at }) => at).filter((at) => at > back), perMs - wayMs), limit)
      }),
    90_000
  )
})
