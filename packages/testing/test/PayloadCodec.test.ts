/** Whole programs with a codec: what the cluster is given, and what the program sees. */
import { assert, describe, it } from "@effect/vitest"
import { RecurringSchedule, Retry, RetryPolicy, Runs, Schedules, Task } from "@orrery/core"
import * as codedPorts from "@orrery/core/codedPorts"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import { OrreryTest } from "@orrery/testing"
import { Effect, Layer, Option, Redacted, Schema } from "effect"
import { randomBytes } from "node:crypto"

class Declined extends Schema.TaggedError<Declined>()("Declined", { card: Schema.String }) {}

const pay = Task.make("pay", {
  payload: Schema.Struct({ card: Schema.String, times: Schema.Number }),
  success: Schema.Struct({ receipt: Schema.String }),
  error: Declined,
  checkpoint: Schema.String,
  retry: RetryPolicy.fixed({ maxAttempts: 2, delay: 1_000, jitter: 0 })
})
const once = Task.make("once", {
  payload: Schema.String,
  success: Schema.String,
  debounce: { key: () => "one", wait: "1 minute" }
})

const canary = "canary-4111"
const key = () => Redacted.make(randomBytes(32).toString("base64"))
const keys = { k1: key() }
const codec = PayloadCodec.make({ compressFrom: 500, encrypt: { key: "k1", keys } })

const handlers = Layer.merge(
  pay.toLayer((payload, attempt) =>
    Effect.gen(function*() {
      if (payload.card === "declined") return yield* new Declined({ card: canary })
      if (payload.card === "broken") return yield* Effect.dieMessage(`cannot pay with ${canary}`)
      if (Option.isSome(attempt.checkpoint)) return { receipt: `${attempt.checkpoint.value} again` }
      yield* attempt.saveCheckpoint(`half of ${payload.card}`)
      return payload.times === 2
        ? yield* Retry.after("1 second", new Declined({ card: "later" }))
        : { receipt: payload.card }
    })
  ),
  once.toLayer((text) => Effect.succeed(text))
)
const test = OrreryTest.layer({ handlers, codec })

describe("a program with a codec", () => {
  it.scoped("sees its payloads and results; the cluster does not", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const id = yield* pay.enqueue({ card: canary, times: 1 })
      yield* orrery.drain

      assert.deepStrictEqual(yield* pay.result(id), { receipt: canary })
      assert.strictEqual((yield* orrery.assertEnqueued(pay)).payload.card, canary)
      const stored = yield* orrery.cluster.get(id)
      assert.notInclude(JSON.stringify(stored), canary)
      assert.match(stored.payload, /^~e1:k1:r:/)
      assert.match(stored.result ?? "", /^~e1:k1:r:/)
    }).pipe(Effect.provide(test)))

  it.scoped("gets typed errors and messages back; in the store they are unreadable, but alike", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const declined = yield* pay.enqueue({ card: "declined", times: 1 })
      const broken = yield* pay.enqueueMany([{ card: "broken", times: 1 }, { card: "broken", times: 1 }])
      yield* orrery.advance("1 minute")

      assert.deepStrictEqual(yield* Effect.flip(pay.result(declined)), new Declined({ card: canary }))
      const defect = yield* Effect.flip(pay.result(broken[0]!))
      assert.include(String(defect), canary)
      const stored = yield* Effect.forEach([declined, ...broken], orrery.cluster.get)
      assert.notInclude(JSON.stringify(stored), canary)
      assert.strictEqual(stored[1]!.failure?.fingerprint, stored[2]!.failure?.fingerprint)
    }).pipe(Effect.provide(test)))

  it.scoped("redrives what is encrypted for the run that failed; who has no key is refused", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const id = yield* pay.enqueue({ card: "declined", times: 1 })
      yield* orrery.advance("1 minute")
      const refused = yield* Effect.flip(orrery.cluster.redrive(id))
      const again = yield* Effect.flatMap(Runs, (runs) => runs.redrive(id))
      yield* orrery.advance("1 minute")

      assert.strictEqual(refused._tag, "NotRedrivable")
      assert.match(refused.message, /encrypted for it alone/)
      assert.isTrue(again.isNew)
      assert.deepStrictEqual(yield* Effect.flip(pay.result(again.id)), new Declined({ card: canary }))
    }).pipe(Effect.provide(test)))

  it.scoped("edits what waits: the cluster does not see the new payload either", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const id = yield* pay.enqueue({ card: "other", times: 1 }, { delay: "1 hour" })
      const debounced = yield* once.enqueue("first")

      yield* pay.edit(id, { payload: { card: canary, times: 1 }, delay: 0 })
      yield* once.edit(debounced, { payload: canary })
      const stored = yield* orrery.cluster.list({ limit: 10 })
      yield* orrery.advance("2 minutes")

      assert.notInclude(JSON.stringify(stored), canary)
      assert.isTrue(stored.every(({ payload }) => payload.startsWith("~e1:k1:r:")))
      assert.deepStrictEqual(yield* pay.result(id), { receipt: canary })
      assert.strictEqual(yield* once.result(debounced), canary)
    }).pipe(Effect.provide(test)))

  it.scoped("goes on from its checkpoint", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const id = yield* pay.enqueue({ card: canary, times: 2 })
      yield* orrery.advance("1 minute")

      assert.deepStrictEqual(yield* pay.result(id), { receipt: `half of ${canary} again` })
    }).pipe(Effect.provide(test)))

  it.scoped("reads the payload of a later request that took the place of the first", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const id = yield* once.enqueue("first")
      yield* once.enqueue(canary)
      yield* orrery.advance("2 minutes")

      assert.strictEqual(yield* once.result(id), canary)
      assert.notInclude(JSON.stringify(yield* orrery.cluster.list({ limit: 10 })), canary)
    }).pipe(Effect.provide(test)))

  it.scoped("can declare a schedule again, though no text is encrypted alike twice", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const payload = { card: canary, times: 1 }
      const hourly = RecurringSchedule.make("hourly", { version: 1, task: pay, payload, every: "1 hour" })
      yield* RecurringSchedule.reconcile([hourly])
      yield* RecurringSchedule.reconcile([hourly])
      yield* orrery.advance("1 hour")

      const run = yield* orrery.assertEnqueued(pay, { card: canary })
      assert.deepStrictEqual(yield* pay.result(run.id), { receipt: canary })
      assert.match((yield* orrery.cluster.get(run.id)).payload, /^~e1:k1:t:/)
      const { definition } = yield* Effect.flatMap(Schedules, ({ get }) => get(hourly.id))
      assert.include(definition.run.payload, canary)
    }).pipe(Effect.provide(test)))

  it.scoped("ends a run at once that needs a key the worker does not have, and names it", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const runs = yield* Runs
      const other = PayloadCodec.make({ encrypt: { key: "k2", keys: { k2: key() } } })
      const sender = codedPorts.runs(other, orrery.cluster)
      const id = yield* pay.enqueue({ card: canary, times: 1 }).pipe(Effect.provideService(Runs, sender))
      yield* orrery.drain

      const run = yield* runs.get(id)
      assert.deepStrictEqual([run.state, run.attempt, run.failure?.kind, run.failure?.tag], [
        "failed",
        1,
        "undecodable",
        "CodecFailed"
      ])
      assert.include(run.failure?.message ?? "", "key k2 was met by a process without that key")
    }).pipe(Effect.provide(test)))

  it.scoped("a worker without a codec says so, and reads nothing wrong", () =>
    Effect.gen(function*() {
      const orrery = yield* OrreryTest
      const sender = codedPorts.runs(codec, yield* Runs)
      const id = yield* pay.enqueue({ card: canary, times: 1 }).pipe(Effect.provideService(Runs, sender))
      yield* orrery.drain

      const run = yield* Effect.flatMap(Runs, ({ get }) => get(id))
      assert.deepStrictEqual([run.state, run.failure?.tag], ["failed", "CodecFailed"])
      assert.include(run.failure?.message ?? "", "key k1 was met by a process without a codec")
      assert.notInclude(JSON.stringify(run), canary)
    }).pipe(Effect.provide(OrreryTest.layer({ handlers }))))
})
