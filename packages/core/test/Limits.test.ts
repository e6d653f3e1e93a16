import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FiberSet, Layer, Option, TestClock } from "effect"
import * as ConcurrencyLimiter from "../src/ConcurrencyLimiter.js"
import * as Limits from "../src/Limits.js"
import { LimitStore, LimitsUnavailable, type RateRequest } from "../src/LimitStore.js"
import * as MemoryLimitStore from "../src/MemoryLimitStore.js"
import * as RateLimiter from "../src/RateLimiter.js"
import { RateLine } from "../src/RateLine.js"

type Store = LimitStore["Type"]

/** Limits on a store in memory of which something is changed. */
const limitsOn = (change: (store: Store) => Partial<Store>): Layer.Layer<Limits.Limits> =>
  Layer.provide(
    Limits.layer,
    Layer.effect(LimitStore, Effect.map(MemoryLimitStore.make, (store) => ({ ...store, ...change(store) })))
  )

const gone = new LimitsUnavailable({ operation: "test", reason: "it is away" })

describe("Limits", () => {
  it.effect("gives up tokens that come too late, and asks for longer ones", () => {
    const asked: Array<RateRequest> = []
    const slow = limitsOn((store) => ({
      grant: (rule, request) =>
        Effect.tap(store.grant(rule, request), () => {
          asked.push(request)
          return Effect.sleep("30 millis")
        })
    }))
    return Effect.gen(function*() {
      const limiter = RateLimiter.make("slow", { limit: 10, per: "1 second" })
      const taking = yield* Effect.fork(limiter.take())

      yield* TestClock.adjust("30 millis")
      const early = yield* Fiber.poll(taking)
      yield* TestClock.adjust("30 millis")
      yield* Fiber.join(taking)

      assert.isTrue(Option.isNone(early))
      assert.deepStrictEqual(asked.map(({ validMs }) => validMs), [20, 60])
    }).pipe(Effect.provide(slow))
  })

  it.effect("asks once for all who wait", () => {
    const asked: Array<RateRequest> = []
    const counted = limitsOn((store) => ({
      grant: (rule, request) => {
        asked.push(request)
        return Effect.delay(store.grant(rule, request), "1 millis")
      }
    }))
    return Effect.gen(function*() {
      const limiter = RateLimiter.make("chunks", { limit: 1_000, per: "1 second" })
      const taking = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.fork(limiter.take()))

      yield* TestClock.adjust("1 millis")
      yield* TestClock.adjust("1 millis")
      yield* Effect.forEach(taking, (fiber) => Fiber.join(fiber))

      assert.isAtMost(asked.length, 2)
    }).pipe(Effect.provide(counted))
  })

  it.scoped("lets so many wait and refuses the next", () =>
    Effect.gen(function*() {
      const store = yield* MemoryLimitStore.make
      const clock = yield* Effect.clock
      const fork = yield* FiberSet.makeRuntime<never, void, never>()
      const rule = { name: "full", limit: 1, perMs: 60_000, exactness: "strict", burst: 1 } as const
      const line = new RateLine({
        rule,
        whenGone: "closed",
        store,
        alone: store,
        clock,
        fork: (effect) => void fork(effect),
        waitersMax: 20
      })
      yield* line.take(1, 3_600_000)
      yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.fork(line.take(1, 3_600_000)), { discard: true })
      yield* Effect.yieldNow()

      const error = yield* Effect.flip(line.take(1, 3_600_000))

      assert.strictEqual(error.reason, "waiters")
      assert.include(error.message, "20 wait already")
    }))

  it.effect("stops a holder that cannot renew before another may hold its permit, unless told to go on", () =>
    Effect.gen(function*() {
      const make = (whenGone: "closed" | "open") =>
        ConcurrencyLimiter.make("renewals", { limit: 2, lease: "10 seconds", whenGone })
      const holding = yield* Effect.forEach(
        ["closed", "open"] as const,
        (whenGone) => Effect.fork(Effect.either(make(whenGone).withPermit(Effect.never)))
      )
      yield* TestClock.adjust("8 seconds")
      const before = yield* Effect.forEach(holding, (fiber) => Fiber.poll(fiber))
      yield* TestClock.adjust("1900 millis")
      const [closed, open] = yield* Effect.forEach(holding, (fiber) => Fiber.poll(fiber))

      assert.isTrue(before.every(Option.isNone))
      assert.isTrue(Option.isNone(open!))
      const lost = yield* Option.getOrThrow(closed)
      assert.strictEqual(lost._tag === "Left" ? lost.left._tag : "", "PermitLost")
      yield* Fiber.interruptAll(holding)
    }).pipe(Effect.provide(limitsOn(() => ({ renew: () => gone })))))

  it.effect("stops a holder whose lease has ended", () =>
    Effect.gen(function*() {
      const limiter = ConcurrencyLimiter.make("ended", { limit: 2, lease: "9 seconds" })
      const holding = yield* Effect.fork(Effect.flip(limiter.withPermit(Effect.never)))
      yield* TestClock.adjust("3 seconds")

      assert.strictEqual((yield* Fiber.join(holding))._tag, "PermitLost")
    }).pipe(Effect.provide(limitsOn(() => ({ renew: () => Effect.succeed(false) })))))

  it("refuses wrong definitions, by the name of the field", () => {
    const fieldOf = (define: () => unknown): string => {
      try {
        define()
      } catch (error) {
        return (error as { readonly field: string }).field
      }
      return "none"
    }
    const ok = { limit: 10, per: "1 second" } as const

    assert.deepStrictEqual(
      [
        () => RateLimiter.make("with space", ok),
        () => RateLimiter.make("a", { ...ok, limit: 0 }),
        () => RateLimiter.make("a", { ...ok, per: "2 minutes" }),
        () => RateLimiter.make("a", { ...ok, per: "1 millis" }),
        () => RateLimiter.make("a", { ...ok, exactness: "relaxed", burst: 11 }),
        () => RateLimiter.make("a", { ...ok, cost: 11 }),
        () => RateLimiter.make("a", { ...ok, waitMax: "not a time" as never }),
        () => ConcurrencyLimiter.make("a", { limit: 1.5 }),
        () => ConcurrencyLimiter.make("a", { limit: 1, lease: "1 millis" }),
        () => RateLimiter.make("a", { ...ok, per: "2 minutes", exactness: "relaxed" })
      ].map(fieldOf),
      ["name", "limit", "per", "per", "burst", "cost", "waitMax", "limit", "lease", "none"]
    )
  })
})
