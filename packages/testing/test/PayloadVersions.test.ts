/** A rolling deploy: clients and workers that know other versions of one task. */
import { assert, describe, it } from "@effect/vitest"
import { RecurringSchedule, Runs, Schedules, Task } from "@orrery/core"
import { OrreryTest } from "@orrery/testing"
import { Effect, Schema } from "effect"

const V1 = Schema.Struct({ cents: Schema.Number })
const V2 = Schema.Struct({ cents: Schema.Number, currency: Schema.String })

const before = Task.make("charge", { payload: V1, success: Schema.String, concurrency: { limit: 1 } })
const after = Task.make("charge", {
  payload: Task.versions(V1).next(V2, (v1) => ({ ...v1, currency: "EUR" })),
  success: Schema.String,
  concurrency: { limit: 1 }
})

const older = OrreryTest.layer({ handlers: before.toLayer(({ cents }) => Effect.succeed(`${cents}`)) })
const newer = OrreryTest.layer({
  handlers: after.toLayer(({ cents, currency }) => Effect.succeed(`${cents} ${currency}`))
})

describe("payload versions", () => {
  it.scoped("a new worker executes what old and new clients ask for", () =>
    Effect.gen(function*() {
      const test = yield* OrreryTest
      const old = yield* before.enqueue({ cents: 1 })
      const young = yield* after.enqueue({ cents: 2, currency: "USD" })
      yield* test.drain

      assert.strictEqual(yield* before.result(old), "1 EUR")
      assert.strictEqual(yield* after.result(young), "2 USD")
      assert.deepStrictEqual((yield* test.enqueued(after)).map(({ payload }) => payload.currency), ["EUR", "USD"])
    }).pipe(Effect.provide(newer)))

  it.scoped("an old worker is never given what it cannot read: that waits visibly, and holds up nothing", () =>
    Effect.gen(function*() {
      const test = yield* OrreryTest
      const young = yield* after.enqueueMany([{ cents: 1, currency: "USD" }, { cents: 2, currency: "USD" }])
      const old = yield* before.enqueue({ cents: 3 })
      yield* test.drain

      const runs = yield* Runs
      const waiting = yield* runs.get(young[0]!)
      assert.strictEqual(yield* before.result(old), "3")
      assert.deepStrictEqual([waiting.state, waiting.attempt, waiting.version], ["ready", 0, 2])
      assert.strictEqual(waiting.waitsFor, "no worker with this capability: charge@2")
    }).pipe(Effect.provide(older)))

  it.scoped("a schedule makes runs of the version that declared it", () =>
    Effect.gen(function*() {
      const test = yield* OrreryTest
      const payload = { cents: 4, currency: "USD" }
      const hourly = RecurringSchedule.make("hourly", { version: 1, task: after, payload, every: "1 hour" })
      yield* RecurringSchedule.reconcile([hourly])
      yield* test.advance("1 hour")

      const [run] = yield* test.enqueued(after)
      assert.strictEqual(yield* after.result(run!.id), "4 USD")
      assert.strictEqual(
        (yield* Effect.flatMap(Schedules, ({ get }) => get(hourly.id))).definition.run.task,
        "charge@2"
      )
    }).pipe(Effect.provide(newer)))
})
