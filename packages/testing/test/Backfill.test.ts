/** Backfills have half of the slots: the whole of Orrery in memory, on the clock of the test. */
import { assert, describe, it } from "@effect/vitest"
import { RecurringSchedule, Runs, Task } from "@orrery/core"
import { Schedules } from "@orrery/core/schedule/Schedules"
import { OrreryTest } from "@orrery/testing"
import { Effect, Layer, Schema, TestClock } from "effect"

const hour = 3_600_000
const report = Task.make("report", { payload: Schema.Void, queue: "reports" })
const other = Task.make("other", { payload: Schema.Void, queue: "reports" })
const counts = { now: 0, most: 0, done: 0 }
const counted = Effect.acquireUseRelease(
  Effect.sync(() => {
    counts.now += 1
    counts.most = Math.max(counts.most, counts.now)
  }),
  () => Effect.sleep("1 minute"),
  () =>
    Effect.sync(() => {
      counts.now -= 1
      counts.done += 1
    })
)

describe("a backfill", () => {
  it.scoped("has half of the slots, goes on as its runs end, and says what it waits for", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(100 * hour)
      const kit = yield* OrreryTest
      const runs = yield* Runs
      const { call } = yield* Schedules
      const schedule = RecurringSchedule.make("reports", {
        version: 1,
        task: report,
        payload: undefined,
        every: "1 hour"
      })
      yield* RecurringSchedule.reconcile([schedule])

      const range = { from: 80 * hour, until: 99 * hour }
      yield* call({ _tag: "backfill", id: schedule.id, ...range, order: "oldest", perMinute: 6_000 })
      yield* kit.advance("1 second")

      assert.strictEqual(counts.now, 3)
      const waiting = (yield* kit.enqueued(report)).filter(({ state }) => state === "ready")
      assert.strictEqual(waiting.length, 17)
      const { reason } = yield* runs.explain(waiting[0]!.id)
      assert.deepInclude(reason, { _tag: "Blocked", most: 3, running: 3, limit: { name: "orrery.backfill", key: "*" } })

      // The others have the rest, and are not behind those that wait.
      yield* other.enqueueMany(Array.from({ length: 5 }, () => undefined))
      yield* kit.drain
      const states = (yield* kit.enqueued(other)).map(({ state }) => state)
      assert.deepStrictEqual(states.filter((state) => state === "running").length, 3)

      // What it was at ends with it.
      yield* kit.crashWorker
      counts.now = 0
      yield* kit.advance("10 minutes")
      assert.strictEqual(counts.most, 3)
      assert.isTrue((yield* kit.enqueued(report)).every(({ state }) => state === "succeeded"))
    }).pipe(Effect.provide(OrreryTest.layer({
      slots: 6,
      handlers: Layer.mergeAll(report.toLayer(() => counted), other.toLayer(() => Effect.sleep("1 minute")))
    }))))
})
