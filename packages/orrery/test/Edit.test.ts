import { assert, describe, it } from "@effect/vitest"
import { Orrery, retryMany, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { Deferred, Effect, FiberId, Layer, Schema } from "effect"

const Mail = Schema.Struct({ to: Schema.String.pipe(Schema.maxLength(20)) })
const mail = Task.make("mail", { payload: Mail, success: Schema.String })
const broken = Task.make("broken", {
  payload: Schema.Void,
  retry: RetryPolicy.fixed({ maxAttempts: 3, delay: "1 hour", jitter: 0 })
})
const open = Deferred.unsafeMake<void>(FiberId.none)
const gate = Task.make("gate", { payload: Schema.Void })
/** As `mail` was before it had a second version. */
const charge1 = Task.make("charge", { payload: Schema.Number })
const charge = Task.make("charge", {
  payload: Task.versions(Schema.Number).next(Schema.Struct({ cents: Schema.Number }), (cents) => ({ cents })),
  success: Schema.Number
})

const handlers = Layer.mergeAll(
  mail.toLayer(({ to }) => Effect.succeed(to)),
  broken.toLayer((_, { attempt }) => attempt === 1 ? Effect.die("down") : Effect.void),
  gate.toLayer(() => Deferred.await(open)),
  charge.toLayer(({ cents }) => Effect.succeed(cents))
)
const layer = Orrery.layerMemory({ handlers })
const hourMs = 3_600_000

describe("edit", { timeout: 30_000 }, () => {
  it.scopedLive("changes payload, priority and time of a run that waits, each by itself", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* mail.enqueue({ to: "a" }, { delay: "1 hour" })
      const before = yield* runs.get(id)

      const payload = yield* mail.edit(id, { payload: { to: "b" } })
      const priority = yield* mail.edit(id, { priority: 1 })
      const at = yield* mail.edit(id, { at: new Date(before.scheduledAt + hourMs) })
      const shown = yield* runs.get(id)
      const due = yield* mail.edit(id, { delay: 0 })

      const { scheduledAt } = before
      assert.deepStrictEqual(payload, { id, state: "scheduled", priority: 5, scheduledAt })
      assert.deepStrictEqual(priority, { id, state: "scheduled", priority: 1, scheduledAt })
      assert.deepStrictEqual(at, { id, state: "scheduled", priority: 1, scheduledAt: scheduledAt + hourMs })
      assert.deepInclude(shown, { payload: `{"to":"b"}`, priority: 1, scheduledAt: scheduledAt + hourMs })
      assert.strictEqual(due.state, "ready")
      assert.isBelow(due.scheduledAt, scheduledAt)
      assert.strictEqual(yield* mail.result(id), "b")
    }).pipe(Effect.provide(layer)))

  it.scopedLive("lets a run that waits for its next attempt begin at once, without losing count", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* broken.enqueue()
      yield* Effect.repeat(Effect.delay(runs.get(id), "5 millis"), { until: ({ state }) => state === "retrying" })

      const edited = yield* broken.edit(id, { delay: 0 })
      yield* broken.result(id)

      assert.strictEqual(edited.state, "retrying")
      assert.deepInclude(yield* runs.get(id), { state: "succeeded", attempt: 2 })
    }).pipe(Effect.provide(layer)))

  it.scopedLive("does the same for all of a filter, and counts first when asked to", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const ids = yield* broken.enqueueMany(Array.from({ length: 40 }, () => undefined))
      yield* Effect.repeat(Effect.delay(runs.list({ task: "broken", state: "retrying", limit: 50 }), "5 millis"), {
        until: (found) => found.length === 40
      })

      const filter = { task: "broken" }
      const dry = yield* retryMany({ filter, dryRun: true })
      const some = yield* retryMany({ filter, limit: 30 })
      const rest = yield* retryMany({ filter })
      yield* Effect.forEach(ids, broken.result)

      assert.deepInclude(dry, { matched: 40, retried: 0, isComplete: true })
      assert.strictEqual(dry.sample.length, 10)
      assert.deepInclude(some, { matched: 30, retried: 30, isComplete: false })
      assert.deepInclude(rest, { matched: 10, retried: 10, gone: 0 })
      assert.include((yield* Effect.flip(retryMany({ filter: {} }))).message, "filter must be with a namespace")
    }).pipe(Effect.provide(layer)))

  it.scopedLive("writes a payload in the newest version of the task, whatever the run had", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const [old, kept] = yield* charge1.enqueueMany([1, 1], { delay: "1 hour" })

      yield* charge.edit(old!, { payload: { cents: 250 }, delay: 0 })
      yield* charge.edit(kept!, { delay: 0 })

      assert.strictEqual(yield* charge.result(old!), 250)
      assert.strictEqual(yield* charge.result(kept!), 1)
      assert.deepStrictEqual([(yield* runs.get(old!)).version, (yield* runs.get(kept!)).version], [2, undefined])
    }).pipe(Effect.provide(layer)))

  it.scopedLive("is refused with a typed error, which names the state of a run that does not wait", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* mail.enqueue({ to: "a" }, { delay: "1 hour" })
      const running = yield* gate.enqueue()
      yield* Effect.repeat(Effect.delay(runs.get(running), "5 millis"), { until: ({ state }) => state === "running" })
      const done = yield* mail.enqueue({ to: "a" })
      yield* mail.result(done)
      const cancelled = yield* mail.enqueue({ to: "a" }, { delay: "1 hour" })
      yield* runs.cancel(cancelled)
      const none = unsafeMakeRunId(0)

      const refusals = yield* Effect.forEach([
        gate.edit(running, { priority: 1 }),
        mail.edit(done, { priority: 1 }),
        mail.edit(cancelled, { priority: 1 }),
        mail.edit(none, { priority: 1 }),
        gate.edit(id, { priority: 1 }),
        mail.edit(id, {}),
        mail.edit(id, { priority: -1 }),
        mail.edit(id, { delay: 1, at: new Date(0) }),
        mail.edit(id, { payload: { to: "x".repeat(21) } }),
        runs.edit(id, { payload: `"${"x".repeat(256 * 1024)}"` })
      ], Effect.flip)

      assert.deepStrictEqual(refusals.slice(0, 4).map(({ message }) => message), [
        `run ${running} is running, only one that waits can be edited`,
        `run ${done} is succeeded, only one that waits can be edited`,
        `run ${cancelled} is cancelled, only one that waits can be edited`,
        `run ${none} not found`
      ])
      assert.deepStrictEqual(refusals.slice(4).map(({ _tag }) => _tag), [
        ...["InvalidRequest", "InvalidRequest", "InvalidRequest", "InvalidRequest", "PayloadInvalid"],
        "PayloadTooLarge"
      ])
      assert.strictEqual(refusals[4]!.message, "task must be that of the run, mail, got gate")
      assert.deepInclude(yield* runs.get(id), { payload: `{"to":"a"}`, priority: 5 })
      yield* Deferred.succeed(open, undefined)
    }).pipe(Effect.provide(layer)))
})
