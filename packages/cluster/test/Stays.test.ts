import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as Stays from "../src/Stays.js"

describe("Stays", () => {
  it.scoped("ends each wait once it is not needed, and looks for all with one timer", () =>
    Effect.gen(function*() {
      const whileNeeded = yield* Stays.make({ isLeaving: () => false, leaving: Effect.never })
      const needed = [true, true]
      let looks = 0
      const wait = (at: number) =>
        Effect.fork(whileNeeded(() => {
          looks += 1
          return needed[at]!
        }))
      const first = yield* wait(0)
      const second = yield* wait(1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(looks, 20)
      assert.isNull(first.unsafePoll())

      needed[0] = false
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(first)
      assert.isNull(second.unsafePoll())

      yield* Fiber.interrupt(second)
      looks = 0
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(looks, 0)

      // Somebody comes again.
      const third = yield* wait(0)
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(third)
    }))

  it.scoped("looks at once when the node leaves, and often from then on", () =>
    Effect.gen(function*() {
      const leaving = yield* Effect.makeLatch(false)
      let isLeaving = false
      const whileNeeded = yield* Stays.make({ isLeaving: () => isLeaving, leaving: leaving.await })
      let isNeeded = true
      const waiting = yield* Effect.fork(whileNeeded(() => isNeeded))
      yield* TestClock.adjust("5 millis")

      isLeaving = true
      yield* leaving.open
      yield* TestClock.adjust("25 millis")
      isNeeded = false
      yield* TestClock.adjust("10 millis")

      yield* Fiber.join(waiting)
    }))
})
