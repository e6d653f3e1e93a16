/** Awaiting without a node: by the store, hints and the cache of ends. */
import { assert, describe, it } from "@effect/vitest"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as EndCache from "@orrery/core/EndCache"
import * as Handlers from "@orrery/core/Handlers"
import * as MemoryEndStore from "@orrery/core/MemoryEndStore"
import * as MemorySignals from "@orrery/core/MemorySignals"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import { RunReader } from "@orrery/core/RunReader"
import { Runs } from "@orrery/core/Runs"
import * as Signals from "@orrery/core/Signals"
import * as Task from "@orrery/core/Task"
import { runIdMadeAt } from "@orrery/testing/storeSamples"
import { Context, Effect, Fiber, Layer, Redacted, Schema } from "effect"
import * as SoloNode from "../src/SoloNode.js"
import * as StoreRuns from "../src/StoreRuns.js"

const queue = { namespace: "default", queue: "elsewhere" }
const held = Task.make("held", {
  payload: Schema.Number,
  success: Schema.Number,
  queue: queue.queue,
  retry: RetryPolicy.none
})

/** A process that executes, and one beside it that shares the store alone. */
const start = (signals: Signals.SignalsService, { cached = true } = {}) =>
  Effect.gen(function*() {
    const gate = yield* Effect.makeLatch(false)
    const tables = yield* Layer.build(MemoryStore.layer)
    const [reader, progress] = [Context.get(tables, RunReader), Context.get(tables, ProgressStore)]
    const reads = { rows: 0, looks: 0 }
    const counted = tables.pipe(
      Context.add(RunReader, {
        ...reader,
        find: (id) => Effect.zipRight(Effect.sync(() => reads.rows += 1), reader.find(id))
      }),
      Context.add(ProgressStore, {
        ...progress,
        endings: (name, ids) => Effect.zipRight(Effect.sync(() => reads.looks += 1), progress.endings(name, ids))
      })
    )
    const ends = yield* EndCache.make(yield* MemoryEndStore.make(), Redacted.make(Buffer.alloc(32, 7)))
    const hints = Layer.succeed(Signals.Signals, signals)
    const handlers = held.toLayer((n) => Effect.as(gate.await, n + 1))
    const owner = yield* Layer.build(
      SoloNode.layer({ slots: 100 }).pipe(Layer.provide([
        Layer.succeedContext(tables),
        Layer.provideMerge(handlers, Handlers.layer),
        ClusterConfig.layer(),
        hints
      ]))
    )
    const open = Layer.build(
      StoreRuns.layer.pipe(Layer.provide([
        Layer.succeedContext(counted),
        hints,
        cached ? Layer.succeed(EndCache.EndCache, ends) : Layer.empty
      ]))
    )
    return { gate, owner, open, reads, ends }
  })

const within = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.timeout(effect, "15 seconds")
const ms = Effect.sync(() => performance.now())

describe("a process without a node", () => {
  for (const kind of ["with hints", "without hints"] as const) {
    it.scopedLive(`awaits ends ${kind}`, () =>
      Effect.gen(function*() {
        const signals = kind === "with hints" ? yield* MemorySignals.make : Signals.none
        const { gate, open, owner, reads } = yield* start(signals)
        const outside = yield* open
        const requests = yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => n), (n) => held.request(n))
        // Ids of now, whatever the clocks were that others of this process have been made by.
        const ids = requests.map(() => runIdMadeAt(Date.now()))
        yield* Context.get(owner, Runs).enqueueMany(requests.map((request, at) => ({ ...request, id: ids[at]! })))
        const awaited = yield* Effect.fork(
          Effect.provide(Effect.forEach(ids, (id) => held.result(id), { concurrency: 50 }), outside)
        )
        yield* Effect.sleep("300 millis")
        const before = { ...reads }
        yield* Effect.sleep("1 second")
        const idle = { rows: reads.rows - before.rows, looks: reads.looks - before.looks }
        yield* gate.open
        const began = yield* ms
        const results = yield* within(Fiber.join(awaited))
        const took = (yield* ms) - began
        const after = { ...reads }
        const again = yield* Effect.provide(held.result(ids[0]!), outside)

        assert.deepStrictEqual(results, ids.map((_, n) => n + 1))
        assert.strictEqual(again, 1)
        // While it waits it reads no row, and looks for all runs at once.
        assert.strictEqual(idle.rows, 0)
        assert.isAtMost(idle.looks, 2)
        // One to learn where it is, one for the end.
        assert.strictEqual(after.rows, 100)
        // The second time it is kept.
        assert.strictEqual(reads.rows, after.rows)
        if (kind === "with hints") assert.isBelow(took, Signals.pollMs)
      }))
  }

  it.scopedLive("takes an end that was kept from the cache, without a look at the rows", () =>
    Effect.gen(function*() {
      const { ends, gate, open, owner, reads } = yield* start(yield* MemorySignals.make)
      const outside = yield* open
      // Of some time ago.
      const request = { ...(yield* held.request(1)), id: runIdMadeAt(performance.timeOrigin - 5_000) }
      const runs = Context.get(owner, Runs)
      yield* runs.enqueueMany([request])
      yield* gate.open
      ends.keep(yield* within(runs.awaitFinal(request.id)))

      const result = yield* Effect.provide(held.result(request.id), outside)

      assert.strictEqual(result, 2)
      assert.deepStrictEqual(reads, { rows: 0, looks: 0 })
    }))

  it.scopedLive("is not misled by a forged hint, and hears of an end that came before it followed", () =>
    Effect.gen(function*() {
      const signals = yield* MemorySignals.make
      const { gate, open, owner, reads } = yield* start(signals, { cached: false })
      const outside = Context.get(yield* open, Runs)
      const id = yield* Effect.provide(held.enqueue(1), owner)
      const awaited = yield* Effect.fork(outside.awaitFinal(id))
      yield* Effect.sleep("200 millis")
      const before = reads.rows

      signals.queue(queue).publish(() => [{ id, state: "succeeded" }])
      yield* Effect.sleep("100 millis")
      const [isWaiting, looks] = [Fiber.poll(awaited), reads.rows - before]
      assert.strictEqual((yield* isWaiting)._tag, "None")
      assert.isAtMost(looks, 1)
      yield* gate.open
      const run = yield* within(Fiber.join(awaited))

      assert.strictEqual(run.state, "succeeded")
    }))

  it.scopedLive("refuses what needs an owner", () =>
    Effect.gen(function*() {
      const { open, owner } = yield* start(Signals.none)
      const outside = yield* open
      const runs = Context.get(outside, Runs)
      const id = yield* Effect.provide(held.enqueue(1), owner)

      const errors = yield* Effect.forEach(
        [Effect.provide(held.enqueue(1), outside), runs.cancel(id), runs.redrive(id), runs.explain(id)],
        (call) => Effect.flip(call as Effect.Effect<unknown, { readonly _tag: string }>)
      )
      const none = yield* Effect.flip(runs.awaitFinal(runIdMadeAt(0)))

      assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array.from({ length: 4 }, () => "ClusterUnavailable"))
      assert.strictEqual(none._tag, "RunNotFound")
      assert.strictEqual((yield* runs.get(id)).id, id)
    }))
})
