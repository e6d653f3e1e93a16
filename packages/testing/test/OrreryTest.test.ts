import { assert, describe, it } from "@effect/vitest"
import { Attempt, RecurringSchedule, RetryPolicy, Runs, Task } from "@orrery/core"
import { OrreryTest } from "@orrery/testing"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Ref, Schema, TestClock } from "effect"

class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.Number }) {}

const Order = Schema.Struct({ order: Schema.Number, lines: Schema.Array(Schema.String) })

/** Charges, and asks for a receipt an hour later. */
const receipt = Task.make("receipt", { payload: Order, queue: "mail" })
const charge = Task.make("charge", {
  payload: Order,
  success: Schema.String,
  error: Declined,
  retry: RetryPolicy.fixed({ maxAttempts: 3, delay: 60_000, jitter: 0 })
})
const slow = Task.make("slow", { payload: Schema.Number, queue: "slow", timeout: "10 seconds" })

const order = (n: number) => ({ order: n, lines: ["a", "b"] })

/** What has happened, with the second it happened at. */
class Log extends Context.Tag("test/Log")<Log, Ref.Ref<ReadonlyArray<string>>>() {
  static readonly layer = Layer.effect(Log, Ref.make<ReadonlyArray<string>>([]))
}
const say = (what: string) =>
  Effect.gen(function*() {
    const at = (yield* Clock.currentTimeMillis) / 1000
    yield* Ref.update(yield* Log, (all) => [...all, `${at} ${what}`])
  })
const said = Effect.flatMap(Log, Ref.get)

const handlers = Layer.mergeAll(
  charge.toLayer((payload) =>
    Effect.gen(function*() {
      const { attempt } = yield* Attempt
      yield* say(`charge ${payload.order} attempt ${attempt}`)
      yield* receipt.enqueue(payload, { delay: "1 hour" }).pipe(Effect.orDie)
      return `charged ${payload.order}`
    })
  ),
  receipt.toLayer(({ order }) => say(`receipt ${order}`)),
  slow.toLayer((seconds) => Effect.zipRight(Effect.sleep(seconds * 1000), say(`slow ${seconds}`)))
)

const test = OrreryTest.layer({ handlers }).pipe(Layer.provideMerge(Log.layer))
const inline = OrreryTest.layer({ handlers, inline: true }).pipe(Layer.provideMerge(Log.layer))

describe("OrreryTest", () => {
  it.scoped("executes what is due, and lets the rest wait for the clock", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      const id = yield* charge.enqueue(order(1))

      yield* kit.drain

      assert.strictEqual(yield* charge.result(id), "charged 1")
      assert.deepStrictEqual(yield* said, ["0 charge 1 attempt 1"])
      assert.strictEqual((yield* kit.assertEnqueued(receipt, { order: 1 })).state, "scheduled")

      yield* kit.advance("59 minutes")
      assert.strictEqual((yield* said).length, 1)
      yield* kit.advance("1 minute")
      assert.deepStrictEqual(yield* said, ["0 charge 1 attempt 1", "3600 receipt 1"])
    }).pipe(Effect.provide(test)))

  it.scoped("stops at each instant on the way", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      yield* kit.failNext(charge, new Declined({ code: 51 }))
      yield* kit.dieNext(charge, new Error("boom"))
      yield* charge.enqueue(order(1))
      yield* slow.enqueueMany([7, 3])

      yield* kit.advance("1 day")

      assert.deepStrictEqual(yield* said, ["3 slow 3", "7 slow 7", "120 charge 1 attempt 3", "3720 receipt 1"])
    }).pipe(Effect.provide(test)))

  it.scoped("ends a run as failed when its attempts are used up, with its error", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      for (const code of [1, 2, 3]) yield* kit.failNext(charge, new Declined({ code }))
      const id = yield* charge.enqueue(order(1))
      yield* kit.advance("2 minutes")

      const error = yield* Effect.flip(charge.result(id))

      assert.deepStrictEqual(error, new Declined({ code: 3 }))
      assert.deepStrictEqual((yield* kit.enqueued(charge)).map(({ attempt, state }) => [attempt, state]), [[
        3,
        "failed"
      ]])
    }).pipe(Effect.provide(test)))

  it.scoped("kills the worker after the handler has done its work: it is done again", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      yield* kit.crashNext(charge)
      const id = yield* charge.enqueue(order(1))

      yield* kit.drain

      assert.strictEqual(yield* charge.result(id), "charged 1")
      assert.deepStrictEqual(yield* said, ["0 charge 1 attempt 1", "0 charge 1 attempt 2"])
      assert.lengthOf(yield* kit.enqueued(receipt), 2)
    }).pipe(Effect.provide(test)))

  it.scoped("kills the worker before the handler has begun, until the run is taken for poison", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      for (let n = 0; n < 3; n++) yield* kit.crashNext(charge, "before")
      const id = yield* charge.enqueue(order(1))
      yield* kit.drain

      const run = yield* Effect.flatMap(Runs, (runs) => runs.get(id))

      assert.strictEqual(run.state, "failed")
      assert.strictEqual(run.failure?.tag, "PoisonRun")
      assert.deepStrictEqual(yield* said, [])
    }).pipe(Effect.provide(test)))

  it.scoped("kills a worker with all it is at; nothing of it goes on, no finalizer runs", () =>
    Effect.gen(function*() {
      const finalized = yield* Ref.make(0)
      const task = Task.make("held", { payload: Schema.Void })
      const held = task.toLayer(() =>
        Effect.zipRight(Effect.sleep("1 minute"), say("end")).pipe(Effect.ensuring(Ref.update(finalized, (n) => n + 1)))
      )
      yield* Effect.gen(function*() {
        const kit = yield* OrreryTest
        const id = yield* task.enqueue()
        yield* kit.advance("30 seconds")
        yield* kit.crashWorker
        yield* kit.advance("30 seconds")
        assert.deepStrictEqual(yield* said, [])
        yield* kit.advance("30 seconds")
        assert.deepStrictEqual(yield* said, ["90 end"])
        assert.strictEqual(yield* Ref.get(finalized), 1)
        yield* task.result(id)
      }).pipe(Effect.provide(OrreryTest.layer({ handlers: held })))
    }).pipe(Effect.provide(Log.layer)))

  it.scoped("ends an attempt at its time limit", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      const id = yield* slow.enqueue(11)
      yield* kit.advance("10 seconds")

      const run = yield* Effect.flatMap(Runs, (runs) => runs.get(id))

      assert.strictEqual(run.failure?.kind, "timeout")
      assert.deepStrictEqual(yield* said, [])
    }).pipe(Effect.provide(test)))

  it.scoped("executes inline, and what it enqueues as well, before an enqueue answers", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      yield* receipt.enqueue(order(7))
      assert.deepStrictEqual(yield* said, ["0 receipt 7"])

      yield* charge.enqueue(order(8))

      assert.strictEqual((yield* said).at(-1), "0 charge 8 attempt 1")
      assert.strictEqual((yield* kit.assertEnqueued(receipt, ({ order }) => order === 8)).state, "scheduled")
    }).pipe(Effect.provide(inline)))

  it.scoped("fires schedules at their times", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      yield* RecurringSchedule.reconcile([
        RecurringSchedule.make("daily", { version: 1, task: receipt, payload: order(0), cron: "0 6 * * *" })
      ])
      yield* kit.advance("3 days")

      assert.deepStrictEqual(yield* said, [6, 30, 54].map((hour) => `${hour * 3600} receipt 0`))
    }).pipe(Effect.provide(test)))

  it.scoped("says what there is when an assertion fails", () =>
    Effect.gen(function*() {
      const kit = yield* OrreryTest
      yield* charge.enqueue(order(1))
      yield* kit.drain

      const missing = yield* Effect.flip(kit.assertEnqueued(charge, { order: 2 }))
      const unwanted = yield* Effect.flip(kit.assertNotEnqueued(charge, { lines: ["a", "b"] }))

      assert.include(missing.message, "succeeded {\"order\":1")
      assert.strictEqual(unwanted.expected, "no matching run")
      yield* kit.assertNotEnqueued(charge, { lines: ["a"] })
    }).pipe(Effect.provide(test)))

  it.scoped("shows runs of a task that keeps nothing", () =>
    Effect.gen(function*() {
      const task = Task.make("unkept", { payload: Schema.Number, retention: "none" })
      yield* Effect.gen(function*() {
        const kit = yield* OrreryTest
        yield* task.enqueue(5)
        yield* kit.drain
        assert.strictEqual((yield* kit.assertEnqueued(task, (n) => n === 5)).state, "succeeded")
      }).pipe(Effect.provide(OrreryTest.layer({ handlers: task.toLayer(() => Effect.void) })))
    }))

  it.scoped("does not wait for ever for a handler that waits for the test", () =>
    Effect.gen(function*() {
      const latch = yield* Deferred.make<string>()
      const task = Task.make("latched", { payload: Schema.Void, success: Schema.String })
      yield* Effect.gen(function*() {
        const kit = yield* OrreryTest
        const result = yield* Effect.fork(task.execute())
        yield* kit.drain
        yield* Deferred.succeed(latch, "open")
        assert.strictEqual(yield* Fiber.join(result), "open")
      }).pipe(Effect.provide(OrreryTest.layer({ handlers: task.toLayer(() => Deferred.await(latch)) })))
    }))

  it.scoped("waits for handlers that wait for runs they have enqueued", () =>
    Effect.gen(function*() {
      const parent = Task.make("parent", { payload: Schema.Number, success: Schema.String })
      const both = parent.toLayer((seconds) => slow.execute(seconds).pipe(Effect.orDie, Effect.as("both")))
      yield* Effect.gen(function*() {
        const kit = yield* OrreryTest
        const id = yield* parent.enqueue(5)
        yield* kit.advance("5 seconds")
        assert.strictEqual(yield* parent.result(id), "both")
      }).pipe(Effect.provide(OrreryTest.layer({
        handlers: Layer.merge(
          both,
          slow.toLayer((s) => Effect.sleep(s * 1000))
        ),
        slots: 2
      })))
    }))

  it.live("refuses a real clock", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.provide(OrreryTest, OrreryTest.layer()))
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.scoped("goes on when the clock is moved by TestClock itself", () =>
    Effect.gen(function*() {
      yield* charge.enqueue(order(1), { delay: "1 minute" })
      yield* TestClock.adjust("1 minute")
      const kit = yield* OrreryTest
      yield* kit.drain
      assert.deepStrictEqual(yield* said, ["60 charge 1 attempt 1"])
    }).pipe(Effect.provide(test)))
})
