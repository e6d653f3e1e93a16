import { assert, describe, it } from "@effect/vitest"
import { cancelMany, Orrery, Runs, Task } from "@orrery/orrery"
import { Effect, Schedule, Schema } from "effect"

const later = Task.make("later", { payload: Schema.Number, queue: "bulk" })
const going = Task.make("going", { payload: Schema.Number, queue: "bulk" })
const other = Task.make("other", { payload: Schema.Number, queue: "other" })

const layer = Orrery.layerMemory({ handlers: going.toLayer(() => Effect.never) })

describe("cancelMany", { timeout: 30_000 }, () => {
  it.scopedLive("cancels what waits and what runs, of the filter and nothing else, and counts first when asked to", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const waiting = yield* later.enqueueMany(Array.from({ length: 700 }, (_, n) => n), { delay: "1 hour" })
      const running = yield* going.enqueueMany([1, 2])
      const [kept] = yield* other.enqueueMany([1], { delay: "1 hour" })
      yield* Effect.repeat(runs.list({ queue: "bulk", state: "running", limit: 10 }), {
        until: (all) => all.length === 2,
        // Without a pause nothing else of this process would happen for long.
        schedule: Schedule.spaced("5 millis")
      })

      const dry = yield* cancelMany({ filter: { queue: "bulk" }, dryRun: true })
      const some = yield* cancelMany({ filter: { queue: "bulk", state: "scheduled" }, limit: 100 })
      const rest = yield* cancelMany({ filter: { queue: "bulk" } })
      yield* Effect.forEach(running, (id) => runs.awaitFinal(id))

      assert.deepInclude(dry, { matched: 702, cancelled: 0, requested: 0, isComplete: true })
      assert.strictEqual(dry.sample.length, 10)
      assert.deepInclude(some, { matched: 100, cancelled: 100, isComplete: false })
      assert.deepInclude(rest, { matched: 602, cancelled: 600, requested: 2, alreadyFinal: 0 })
      for (const id of [...waiting, ...running]) assert.strictEqual((yield* runs.get(id)).state, "cancelled")
      assert.strictEqual((yield* runs.get(kept!)).state, "scheduled")
    }).pipe(Effect.provide(layer)))

  it.effect("refuses what would cancel everything, and what is out of bounds", () =>
    Effect.gen(function*() {
      const all = yield* Effect.flip(cancelMany({ filter: {} }))
      const none = yield* Effect.flip(cancelMany({ filter: { queue: "bulk" }, limit: 0 }))
      assert.include(all.message, "filter must be with a namespace, a queue or a task, got none")
      assert.include(none.message, "limit must be 1 to 1000000, got 0")
    }).pipe(Effect.provide(layer)))
})
