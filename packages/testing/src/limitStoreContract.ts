import { assert, describe, layer } from "@effect/vitest"
import * as ConcurrencyLimiter from "@orrery/core/ConcurrencyLimiter"
import * as Limits from "@orrery/core/Limits"
import { LimitStore, type PermitRule, type RateRule } from "@orrery/core/LimitStore"
import * as RateLimiter from "@orrery/core/RateLimiter"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { limitName, mostInWindow } from "./limitSamples.js"
import { standStill } from "./standStill.js"

const strict = (limit: number, perMs: number): RateRule => ({
  name: limitName(),
  limit,
  perMs,
  exactness: "strict",
  burst: limit
})
const relaxed = (limit: number, perMs: number, burst: number): RateRule => ({
  name: limitName(),
  limit,
  perMs,
  exactness: "relaxed",
  burst
})
const permits = (limit: number, leaseMs: number): PermitRule => ({
  name: limitName(),
  limit,
  leaseMs,
  exactness: "relaxed"
})

/** Monotonic, ms. */
const now = () => performance.now()

/** More than there are limiter actors, so that some are asked for the first time. */
const newNames = 64

/**
 * What every `LimitStore` must do, and what `Limits` makes of it. `unknown`: what a store that has been there for a while makes of
 * the first use of a strict limit.
 */
export const limitStoreContract = (
  name: string,
  store: Layer.Layer<LimitStore, unknown>,
  unknown: "granted" | "refused for a window"
): void => {
  // They mostly wait.
  describe.concurrent(`LimitStore contract: ${name}`, () => {
    layer(Layer.provideMerge(Limits.layer, store), { excludeTestServices: true, timeout: 60_000 })((it) => {
      /** Known to the store: a strict limit it does not know is closed for one window. */
      const known = (rule: RateRule) =>
        Effect.gen(function*() {
          const limits = yield* LimitStore
          const { granted, waitMs } = yield* limits.grant(rule, { min: rule.limit, want: rule.limit, validMs: 0 })
          yield* Effect.sleep(granted === 0 ? waitMs + 5 : rule.perMs * 1.02 + 5)
          return limits
        })

      it.effect("grants what there is, at least what is of use, and tells when to come back", () =>
        Effect.gen(function*() {
          const rule = strict(10, 1_000)
          const limits = yield* known(rule)
          const ask = (min: number, want: number) => limits.grant(rule, { min, want, validMs: 4 })

          const began = now()
          const some = yield* ask(1, 7)
          const rest = yield* ask(1, 7)
          const nothing = yield* ask(1, 1)
          const tookMs = now() - began
          yield* Effect.sleep(nothing.waitMs + 2)
          const again = yield* ask(1, 7)

          assert.deepStrictEqual([some.granted, rest.granted, nothing.granted], [7, 3, 0])
          assert.isAtLeast(nothing.waitMs, 1_000 - tookMs - 5)
          assert.isAtMost(nothing.waitMs, 1_030)
          assert.isAtLeast(again.granted, 7)
        }))

      it.effect(`knows of a name it has never heard: ${unknown}`, () =>
        Effect.gen(function*() {
          const limits = yield* LimitStore
          const request = { min: 1, want: 5, validMs: 2 }
          yield* Effect.sleep(150)

          const first = yield* Effect.forEach(
            Array.from({ length: newNames }, () => strict(5, 100)),
            (rule) => limits.grant(rule, request)
          )

          if (unknown === "granted") assert.deepStrictEqual(first, first.map(() => ({ granted: 5, waitMs: 0 })))
          else assert.isTrue(first.every(({ granted, waitMs }) => granted === 0 && waitMs > 50))
        }))

      it.effect("counts a token until the window after its last use is over", () =>
        Effect.gen(function*() {
          const rule = strict(5, 600)
          const limits = yield* known(rule)

          const began = now()
          yield* limits.grant(rule, { min: 5, want: 5, validMs: 300 })
          const early = yield* limits.grant(rule, { min: 5, want: 5, validMs: 1 })

          assert.strictEqual(early.granted, 0)
          assert.isAbove(early.waitMs, 900 - (now() - began) - 5)
        }))

      it.effect("fills a bucket at its rate, up to its depth", () =>
        Effect.gen(function*() {
          const rule = relaxed(20, 1_000, 20)
          const limits = yield* LimitStore
          const ask = (min: number, want: number) => limits.grant(rule, { min, want, validMs: 100 })

          const began = now()
          const first = yield* ask(1, 1_000)
          const next = yield* ask(10, 10)
          const tookMs = now() - began
          yield* Effect.sleep(next.waitMs + 10)
          const later = yield* ask(10, 10)

          assert.strictEqual(first.granted, 20)
          assert.strictEqual(next.granted, 0)
          assert.isAtLeast(next.waitMs, 500 - tookMs - 5)
          assert.isAtMost(next.waitMs, 501)
          assert.strictEqual(later.granted, 10)
        }))

      it.effect("gives permits up to the limit, to each holder once, and again when given back", () =>
        Effect.gen(function*() {
          const limits = yield* LimitStore
          const rule = permits(2, 10_000)

          const held = yield* Effect.forEach(["a", "b", "a", "c"], (holder) => limits.acquire(rule, holder))
          yield* limits.release(rule, "a")
          yield* limits.release(rule, "a")
          const again = yield* limits.acquire(rule, "c")

          assert.deepStrictEqual(held.map((each) => each.isHeld), [true, true, true, false])
          assert.isAbove(held[3]!.waitMs, 5_000)
          assert.isTrue(again.isHeld)
          assert.isFalse(yield* limits.renew({ ...rule, exactness: "strict" }, "a"))
        }))

      it.effect("takes a permit back that is not renewed, and no other", () =>
        Effect.gen(function*() {
          const limits = yield* LimitStore
          // A busy machine may be late by half of it.
          const rule = permits(2, 1_200)
          yield* limits.acquire(rule, "dead")
          yield* limits.acquire(rule, "alive")

          yield* Effect.sleep(600)
          const renewed = yield* limits.renew(rule, "alive")
          yield* Effect.sleep(650)
          const taken = yield* limits.acquire(rule, "next")
          const refused = yield* limits.acquire(rule, "another")

          assert.isTrue(renewed)
          assert.isTrue(taken.isHeld)
          assert.isFalse(refused.isHeld)
        }))

      it.scoped("never lets more than a strict limit through in any window, and hardly less", () =>
        Effect.gen(function*() {
          const limiter = RateLimiter.make(limitName(), { limit: 50, per: "250 millis" })
          yield* limiter.take()
          const until = now() + 1_500
          const times: Array<number> = []
          const stoodStill = yield* standStill

          yield* Effect.forEach(Array.from({ length: 40 }), () =>
            Effect.gen(function*() {
              yield* limiter.take()
              times.push(now())
            }).pipe(Effect.repeat({ while: () => now() < until })), { concurrency: 40, discard: true })

          // What was let through while this process stood still was noted that much later.
          assert.isAtMost(mostInWindow(times, 250 - stoodStill.longest()), 50)
          // Of 300; the machine of a test may be busy. Figures are in docs/redis.md.
          assert.isAbove(times.length, 75)
        }))

      it.effect("takes what a use costs, and refuses what can never be", () =>
        Effect.gen(function*() {
          const limiter = RateLimiter.make<number>(limitName(), {
            limit: 100,
            per: "10 seconds",
            cost: (tokens) => tokens,
            exactness: "relaxed",
            burst: 100
          })

          yield* limiter.take(70)
          const more = yield* limiter.tryTake(70)
          const less = yield* limiter.tryTake(30)
          const never = yield* Effect.flip(limiter.take(101))

          assert.deepStrictEqual([more, less], [false, true])
          assert.strictEqual(never._tag, "InvalidRequest")
        }))

      it.effect("gives up after the longest wait, and says why", () =>
        Effect.gen(function*() {
          const limiter = RateLimiter.make(limitName(), {
            limit: 1,
            per: "1 minute",
            exactness: "relaxed",
            waitMax: "60 millis"
          })
          yield* limiter.take()

          const error = yield* Effect.flip(limiter.take())

          assert.strictEqual(error._tag, "LimitNotGranted")
          assert.include(error.message, "limit")
        }))

      it.effect(
        "holds at most so many at a time, gives a permit on, and takes one back however it was used",
        () =>
          Effect.gen(function*() {
            const limiter = ConcurrencyLimiter.make(limitName(), { limit: 3, exactness: "relaxed" })
            let [inside, most, done] = [0, 0, 0]
            const work = Effect.gen(function*() {
              most = Math.max(most, ++inside)
              yield* Effect.sleep("10 millis")
              done += 1
              if (done % 3 === 0) return yield* Effect.fail("refused")
            }).pipe(Effect.ensuring(Effect.sync(() => inside -= 1)))
            const begun = yield* Deferred.make<void>()
            const stuck = yield* Effect.fork(
              limiter.withPermit(Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never))
            )
            yield* Deferred.await(begun)

            const results = yield* Effect.forEach(
              Array.from({ length: 20 }),
              () => Effect.either(limiter.withPermit(work)),
              { concurrency: 20 }
            )
            yield* Fiber.interrupt(stuck)
            yield* Effect.forEach(Array.from({ length: 3 }), () => limiter.withPermit(Effect.sleep("50 millis")), {
              concurrency: 3
            }).pipe(Effect.timeout("8 seconds"))

            assert.strictEqual(most, 2)
            assert.strictEqual(results.filter((each) => each._tag === "Left").length, 6)
          }),
        20_000
      )

      it.effect("forgets those that do not wait any more", () =>
        Effect.gen(function*() {
          const limiter = RateLimiter.make(limitName(), { limit: 2, per: "400 millis", exactness: "relaxed", burst: 1 })
          yield* limiter.take()
          const impatient = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.fork(limiter.take()))
          yield* Effect.sleep("20 millis")
          yield* Fiber.interruptAll(impatient)

          // Else it would wait for 50 others, 10 s.
          yield* Effect.timeout(limiter.take(), "5 seconds")
        }))
    })
  })
}
