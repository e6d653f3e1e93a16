import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as LimitKeeper from "../src/LimitKeeper.js"
import type { LimitStore } from "../src/LimitStore.js"
import * as MemoryLimitStore from "../src/MemoryLimitStore.js"
import * as ConcurrencyLimiter from "../src/ConcurrencyLimiter.js"
import * as RateLimiter from "../src/RateLimiter.js"

const rule = { name: "kept", limit: 1, leaseMs: 1_000, exactness: "strict" } as const
/** Two of them get one permit only where they ask the same keeper. */
const holds = (store: LimitStore["Type"], holder: string) =>
  Effect.map(
    Effect.either(store.acquire(rule, holder)),
    (answer) => answer._tag === "Left" ? "unavailable" : answer.right.isHeld
  )

describe("LimitKeeper", () => {
  it.effect("is the process, until it will be in a cluster; then the cluster, and nobody before and after", () =>
    Effect.gen(function*() {
      const keeper = yield* LimitKeeper.make
      const cluster = yield* MemoryLimitStore.make
      yield* cluster.acquire(rule, "elsewhere")
      const member = yield* Scope.make()

      const alone = [yield* holds(keeper.store, "a"), yield* holds(keeper.store, "b")]
      yield* keeper.joins
      const joining = yield* holds(keeper.store, "a")
      yield* Scope.extend(keeper.keptBy(cluster), member)
      const joined = [yield* holds(keeper.store, "a"), yield* holds(keeper.store, "elsewhere")]
      yield* Scope.close(member, Exit.void)
      const left = yield* holds(keeper.store, "a")

      assert.deepStrictEqual([alone, joining, joined, left], [
        [true, false],
        "unavailable",
        [false, true],
        "unavailable"
      ])
    }))

  it.effect("goes by the cluster that came last, and by the other when that is left", () =>
    Effect.gen(function*() {
      const keeper = yield* LimitKeeper.make
      const [first, second] = [yield* MemoryLimitStore.make, yield* MemoryLimitStore.make]
      yield* first.acquire(rule, "elsewhere")
      const [one, two] = [yield* Scope.make(), yield* Scope.make()]
      yield* Scope.extend(keeper.keptBy(first), one)
      yield* Scope.extend(keeper.keptBy(second), two)

      const bySecond = yield* holds(keeper.store, "a")
      yield* Scope.close(two, Exit.void)
      const byFirst = yield* holds(keeper.store, "a")

      assert.deepStrictEqual([bySecond, byFirst], [true, false])
    }))

  it.effect("is the same for all limits of a program, and closed or open while it cannot be asked, as they say", () =>
    Effect.gen(function*() {
      const options = { limit: 1, per: "1 second" } as const
      const closed = RateLimiter.make("calls", options)
      const open = RateLimiter.make("calls-open", { ...options, whenGone: "open" })
      const permits = ConcurrencyLimiter.make("permits", { limit: 1, waitMax: 0 })
      const keeper = yield* LimitKeeper.LimitKeeper
      const cluster = yield* MemoryLimitStore.make

      yield* keeper!.joins
      const joining = [yield* closed.tryTake(), yield* open.tryTake(), yield* open.tryTake()]
      const error = yield* Effect.flip(permits.withPermit(Effect.void))
      yield* keeper!.keptBy(cluster)
      const joined = [yield* closed.tryTake(), yield* closed.tryTake()]

      assert.deepStrictEqual([joining, joined], [[false, true, false], [true, false]])
      assert.strictEqual(error._tag === "LimitNotGranted" ? error.reason : "", "unavailable")
    }).pipe(Effect.scoped, Effect.provide(LimitKeeper.layer)))
})
