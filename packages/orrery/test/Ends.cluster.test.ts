/**
 * Awaiting ends where the owner is not: two nodes, a process without a node, and a Redis. What it saves is counted: looks at
 * rows by their id, in all of them. `END_FIGURES=1` prints the figures of docs/redis.md.
 */
import { PgClient } from "@effect/sql-pg"
import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { connect } from "@orrery/api/NodeConnection"
import { OrreryNode } from "@orrery/cluster/OrreryNode"
import type { RunId } from "@orrery/core/RunId"
import { Orrery, Runs, Task } from "@orrery/orrery"
import * as RedisServer from "@orrery/testing/RedisServer"
import { runIdMadeAt } from "@orrery/testing/storeSamples"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect, Layer, Schedule, Schema, Tracer } from "effect"

const queue = "ends"
const double = Task.make("double", { payload: Schema.Number, success: Schema.Number, queue })
const handlers = double.toLayer((n) => Effect.succeed(n * 2))
const runsMax = 200

/** Looks at rows by the id of a run, in whatever process of this test. */
let rows = 0
const counting = Layer.unwrapEffect(Effect.map(Effect.tracer, (native) =>
  Layer.setTracer(Tracer.make({
    span: (...args) => {
      if (args[0] === "PgRunReader.find") rows += 1
      return native.span(...args)
    },
    context: native.context
  }))))

const quantile = (sorted: ReadonlyArray<number>, part: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!

interface Measured {
  readonly answers: ReadonlyArray<number>
  readonly rowsPerAwait: number
  readonly p50: number
  readonly p99: number
}

/** One after the other, as a caller feels it. */
const measured = (name: string, runs: Context.Context<Runs>, ids: ReadonlyArray<RunId>) =>
  Effect.gen(function*() {
    const before = rows
    const times: Array<number> = []
    const answers = yield* Effect.forEach(ids, (id) =>
      Effect.suspend(() => {
        const began = performance.now()
        return Effect.tap(double.result(id), () => Effect.sync(() => times.push(performance.now() - began)))
      }))
    times.sort((a, b) => a - b)
    const found: Measured = {
      answers,
      rowsPerAwait: (rows - before) / ids.length,
      p50: quantile(times, 0.5),
      p99: quantile(times, 0.99)
    }
    if (process.env["END_FIGURES"] !== undefined) {
      const { p50, p99, rowsPerAwait } = found
      yield* Effect.sync(() =>
        console.log(`${name}: ${rowsPerAwait.toFixed(2)} rows, ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`)
      )
    }
    return found
  }).pipe(Effect.provide(runs))

const requestOf = (n: number, agoMs: number) =>
  Effect.map(double.request(n), (request) => ({ ...request, id: runIdMadeAt(performance.timeOrigin - agoMs) }))

describe("ends of runs", () => {
  it.scopedLive(
    "are known where the owner is not, without a look at the rows, and a forged one is never believed",
    () =>
      Effect.gen(function*() {
        const redis = yield* RedisServer.start({})
        const databaseUrl = yield* TestPostgres.freshDatabase
        const sql = Context.get(yield* Layer.build(PgClient.layer({ url: databaseUrl })), SqlClient.SqlClient)
        const onRedis = Layer.provide(Orrery.layerRedis({ url: redis.url }))
        const ports = { runnerPort: 0, dataPort: 0, workerSlots: 20 }
        const node = Layer.build(Orrery.layerNode({ databaseUrl, handlers, ...ports }).pipe(onRedis))
        const nodes = [yield* node, yield* node]
        const outside = yield* Layer.build(Orrery.layerReader({ databaseUrl }).pipe(onRedis))
        const plain = yield* Layer.build(Orrery.layerReader({ databaseUrl }))
        const numbers = Array.from({ length: runsMax }, (_, n) => n)
        const doubled = numbers.map((n) => n * 2)
        yield* Effect.provide(double.execute(0), nodes[0]!)
        const [partition] = yield* sql<{ owner: string }>`select owner from orrery.partitions where queue = ${queue}`
        const isOwner = (each: typeof nodes[number]) => Context.get(each, OrreryNode).nodeId === partition!.owner
        const owner = nodes.find(isOwner)!
        const other = nodes.find((each) => !isOwner(each))!
        /** Made some time ago, and ended. */
        const ended = Effect.gen(function*() {
          const requests = yield* Effect.forEach(numbers, (n) => requestOf(n, 5_000))
          yield* Context.get(owner, Runs).enqueueMany(requests)
          const ids = requests.map(({ id }) => id)
          yield* sql<{ count: number }>`
          select count(*)::integer as count from orrery.run_history where id in ${sql.in(ids)}`.pipe(
            Effect.repeat({ until: ([row]) => row!.count === ids.length, schedule: Schedule.spaced("20 millis") }),
            Effect.timeout("30 seconds")
          )
          return ids
        })
        const fresh = (runs: Context.Context<Runs>) =>
          Effect.gen(function*() {
            const ids: Array<RunId> = []
            const before = rows
            for (const n of numbers) {
              const id = yield* Effect.provide(double.enqueue(n), runs)
              ids.push(id)
              yield* Effect.provide(double.result(id), runs)
            }
            return (rows - before) / ids.length
          })

        const atOwner = yield* fresh(owner)
        const elsewhere = yield* fresh(other)
        const ids = yield* ended
        const first = yield* measured("ended, first time, at a node", other, ids)
        yield* Effect.sleep("200 millis")
        const second = yield* measured("ended, kept, at a node", other, ids)
        const reader = yield* measured("ended, kept, without a node", outside, ids)
        const bare = yield* measured("ended, without a node and Redis", plain, ids)

        // A machine that stands still may cost a look more here and there.
        assert.isBelow(atOwner, 1.2)
        assert.isBelow(elsewhere, 2.2)
        assert.deepStrictEqual([first.answers, first.rowsPerAwait], [doubled, 1])
        for (const kept of [second, reader]) {
          assert.deepStrictEqual(kept.answers, doubled)
          assert.isBelow(kept.rowsPerAwait, 0.1)
        }
        assert.deepStrictEqual([bare.answers, bare.rowsPerAwait], [doubled, 1])

        const execute = (...words: ReadonlyArray<string>) => RedisServer.execute(redis.url, ...words)
        const told = yield* execute("GETRANGE", `orrery:end:${ids[0]!}`, "0", "-1")
        const genuine = told.slice(told.indexOf("\r\n") + 2)
        const forgeries = [
          "garbage",
          genuine.replace("\"result\":\"0\"", "\"result\":\"1\""),
          `1.${"A".repeat(43)}.${genuine.slice(46)}`,
          "x".repeat(1_000_000)
        ]
        assert.notStrictEqual(forgeries[1], genuine)
        for (const forged of forgeries) {
          // The end of one run for another is a forgery too.
          for (const id of ids.slice(0, 5)) yield* execute("SET", `orrery:end:${id}`, forged)
          const there = yield* measured("forged, at a node", other, ids.slice(0, 5))
          assert.deepStrictEqual([there.answers, there.rowsPerAwait], [doubled.slice(0, 5), 1])
        }
        for (const id of ids.slice(1, 5)) yield* execute("SET", `orrery:end:${id}`, genuine)
        const swapped = yield* measured("of another run", outside, ids.slice(1, 5))
        for (const id of ids.slice(0, 5)) {
          yield* execute("DEL", `orrery:end:${id}`)
          yield* execute("LPUSH", `orrery:end:${id}`, "x")
        }
        const wrongType = yield* measured("of another type", outside, ids.slice(0, 5))
        yield* execute("FLUSHALL")
        const flushed = yield* measured("forgotten", outside, ids.slice(0, 5))
        yield* redis.stop("SIGKILL")
        const gone = yield* measured("without Redis", other, ids.slice(0, 5))
        const { ends } = yield* Effect.scoped(
          Effect.flatMap(connect(Context.get(other, OrreryNode).dataAddress), (connection) =>
            connection.call("Health", (client) => client.Health()))
        )

        assert.deepStrictEqual([swapped.answers, swapped.rowsPerAwait], [doubled.slice(1, 5), 1])
        assert.deepStrictEqual([wrongType.answers, wrongType.rowsPerAwait], [doubled.slice(0, 5), 1])
        assert.deepStrictEqual([flushed.answers, flushed.rowsPerAwait], [doubled.slice(0, 5), 1])
        assert.deepStrictEqual([gone.answers, gone.rowsPerAwait], [doubled.slice(0, 5), 1])
        // What the node tells of itself.
        assert.isAtLeast(ends!.hits, runsMax * 0.9)
        assert.isAtLeast(ends!.kept, runsMax)
        assert.isAtLeast(ends!.refused, forgeries.length * 4)
      }).pipe(Effect.provide(counting)),
    120_000
  )
})
