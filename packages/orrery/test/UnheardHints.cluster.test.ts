/** Two nodes on a Redis that one of them does not reach any more: who watches at the other must not wait for its hints. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { OrreryNode } from "@orrery/cluster/OrreryNode"
import { Signals } from "@orrery/core/Signals"
import { Orrery, Task } from "@orrery/orrery"
import * as RedisServer from "@orrery/testing/RedisServer"
import { standStill } from "@orrery/testing/standStill"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect, Layer, Redacted, Schema, Stream } from "effect"
import * as TcpProxy from "../../chaos/src/TcpProxy.js"

const namespace = "default"
const queue = "unheard"
const work = Task.make("work", { payload: Schema.Number, queue })
const handlers = work.toLayer(() => Effect.void)
/** For a machine that runs other tests: the other node must not lose it too. */
const commandTimeoutMs = 1_000
/** Noticed after 1.4 s, said after 0.2 s; from then on the rows are looked at every 0.8 s. Unsaid it would be every 5 s. */
const knownWithinMs = 3_000
const stepsMax = 4

describe("hints of a node that has lost its Redis", () => {
  it.scopedLive("are made up for by looks at the rows where others reach theirs", () =>
    Effect.gen(function*() {
      const { longest: busyMs } = yield* standStill
      const redis = yield* RedisServer.start({})
      const databaseUrl = yield* TestPostgres.freshDatabase
      const sql = Context.get(yield* Layer.build(PgClient.layer({ url: databaseUrl })), SqlClient.SqlClient)
      const node = Effect.gen(function*() {
        const proxy = yield* TcpProxy.listen({ host: "127.0.0.1", port: redis.port, random: () => 0.5 })
        const url = new URL(Redacted.value(redis.url))
        url.port = String(proxy.port)
        const hints = yield* Layer.build(Orrery.layerRedis({ url: Redacted.make(url.href), commandTimeoutMs }))
        const context = yield* Layer.build(
          Orrery.layerNode({ databaseUrl, handlers, runnerPort: 0, dataPort: 0, workerSlots: 20 }).pipe(
            Layer.provide(Layer.succeedContext(hints))
          )
        )
        return { proxy, signals: Context.get(hints, Signals), context }
      })
      const nodes = [yield* node, yield* node]
      yield* Effect.provide(work.execute(0), nodes[0]!.context)
      const [partition] = yield* sql<{ owner: string }>`select owner from orrery.partitions where queue = ${queue}`
      const isOwner = (each: typeof nodes[number]) => Context.get(each.context, OrreryNode).nodeId === partition!.owner
      const owner = nodes.find(isOwner)!
      const other = nodes.find((each) => !isOwner(each))!
      const [made, known] = [new Map<string, number>(), new Map<string, number>()]
      const see = (id: string) => known.has(id) ? undefined : known.set(id, performance.now())
      yield* Stream.runForEach(yield* other.signals.watch({ namespace, queue }), (item) =>
        Effect.sync(() => {
          // A look at the rows finds all that was enqueued until then.
          for (const id of item._tag === "gap" ? made.keys() : item.events.map((each) => each.id)) see(id)
        })).pipe(Effect.forkScoped)
      const enqueue = (n: number) =>
        Effect.gen(function*() {
          const id = yield* Effect.provide(work.enqueue(n), owner.context)
          made.set(id, performance.now())
          yield* Effect.sleep("50 millis")
        })
      yield* Effect.repeat(enqueue(0), { until: () => known.size > 3 })

      owner.proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })
      const before = new Set(made.keys())
      yield* Effect.iterate(0, { while: (n) => n < 90, body: (n) => Effect.as(enqueue(n), n + 1) })
      const last = performance.now()
      yield* Effect.sleep(knownWithinMs)

      const isLost = owner.signals.health()?.isUp
      const latencies = [...made].filter(([id, at]) => !before.has(id) && at < last).map(([id, at]) =>
        (known.get(id) ?? Infinity) - at
      )
      assert.strictEqual(isLost, false)
      assert.strictEqual(other.signals.health()?.isUp, true)
      assert.isAtLeast(latencies.length, 90)
      assert.isBelow(Math.max(...latencies), knownWithinMs + stepsMax * busyMs())
    }), 90_000)
})
