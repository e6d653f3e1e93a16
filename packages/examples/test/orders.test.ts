import { assert, describe, it } from "@effect/vitest"
import { OrreryTest } from "@orrery/testing"
import { Effect, Layer } from "effect"
import { Bank, CardDeclined, charge, handlers, remind } from "../src/orders.js"

/** A bank that takes the money for a key once, and the application on it. */
const setUp = () => {
  const taken = new Map<string, number>()
  const bank = Layer.succeed(Bank, {
    take: (cents, key) =>
      Effect.sync(() => {
        taken.set(key, cents)
        return `receipt of ${key}`
      })
  })
  return { taken, app: OrreryTest.layer({ handlers }).pipe(Layer.provide(bank)) }
}

describe("orders", () => {
  it.scoped("reminds a day after the charge", () =>
    Effect.gen(function*() {
      const test = yield* OrreryTest
      yield* charge.enqueue({ order: "A1", cents: 100 })
      yield* test.drain
      yield* test.assertEnqueued(remind, { order: "A1" })

      yield* test.advance("1 day")

      assert.strictEqual((yield* test.assertEnqueued(remind)).state, "succeeded")
    }).pipe(Effect.provide(setUp().app)))

  it.scoped("tries a declined card again each minute, and tells the third refusal", () => {
    const { app, taken } = setUp()
    return Effect.gen(function*() {
      const test = yield* OrreryTest
      for (const code of ["51", "51", "05"]) yield* test.failNext(charge, new CardDeclined({ code }))
      const id = yield* charge.enqueue({ order: "A2", cents: 100 })
      yield* test.advance("2 minutes")

      const error = yield* Effect.flip(charge.result(id))

      assert.deepStrictEqual(error, new CardDeclined({ code: "05" }))
      assert.strictEqual(taken.size, 0)
      yield* test.assertNotEnqueued(remind)
    }).pipe(Effect.provide(app))
  })

  it.scoped("charges once though the worker dies before it can tell", () => {
    const { app, taken } = setUp()
    return Effect.gen(function*() {
      const test = yield* OrreryTest
      yield* test.crashNext(charge)
      const id = yield* charge.enqueue({ order: "A3", cents: 100 })
      yield* test.drain

      assert.deepStrictEqual(yield* charge.result(id), { receipt: "receipt of A3" })
      assert.deepStrictEqual([...taken], [["A3", 100]])
      // The handler ran twice, so it asked for two reminders: only what has a key is done once.
      assert.lengthOf(yield* test.enqueued(remind), 2)
    }).pipe(Effect.provide(app))
  })
})
