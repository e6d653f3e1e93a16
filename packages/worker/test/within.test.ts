import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { Bell, within } from "../src/within.js"

const longMs = 60_000

describe("within", () => {
  it.live("tells how a call ended", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* within(Effect.succeed(1), longMs), Exit.succeed(1))
      assert.deepStrictEqual(yield* within(Effect.fail("no"), longMs), Exit.fail("no"))
      assert.deepStrictEqual(
        yield* within(Effect.zipRight(Effect.yieldNow(), Effect.succeed(2)), longMs),
        Exit.succeed(2)
      )
    }))

  it.live("gives up a call that takes too long, and interrupts it", () =>
    Effect.gen(function*() {
      const interrupted = yield* Deferred.make<void>()
      const call = Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
      assert.isUndefined(yield* within(call, 1))
      yield* Deferred.await(interrupted)
    }))

  it.live("does not wait for one that cannot be interrupted", () =>
    Effect.gen(function*() {
      assert.isUndefined(yield* within(Effect.uninterruptible(Effect.never), 1))
    }))

  it.live("interrupts the call of a caller that is interrupted", () =>
    Effect.gen(function*() {
      const begun = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const call = Deferred.succeed(begun, undefined).pipe(
        Effect.zipRight(Effect.never),
        Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
      )
      const caller = yield* Effect.fork(within(call, longMs))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(caller)
      yield* Deferred.await(interrupted)
    }))
})

describe("Bell", () => {
  it.live("wakes who waits, and holds up nobody while it is open", () =>
    Effect.gen(function*() {
      const bell = new Bell()
      const waiter = yield* Effect.fork(bell.within(longMs))
      yield* Effect.yieldNow()
      bell.open()
      yield* Fiber.join(waiter)
      yield* bell.within(longMs)
    }))

  it.live("lets go after a while, and can be waited for again", () =>
    Effect.gen(function*() {
      const bell = new Bell()
      bell.open()
      bell.close()
      yield* bell.within(1)
      const waiter = yield* Effect.fork(bell.within(longMs))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(waiter)
      bell.open()
      yield* bell.within(longMs)
    }))
})
