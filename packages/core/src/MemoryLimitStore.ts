/**
 * Limits within one process: exact for what it does, and nothing for what others do. For one machine, and for tests.
 *
 * Bounded: `limitsMax` names; one more fails.
 */
import { Clock, Effect, Layer } from "effect"
import { LimitStore, LimitsUnavailable, type PermitRule, type RateRule } from "./LimitStore.js"
import { SlidingWindow } from "./SlidingWindow.js"
import { TokenBucket } from "./TokenBucket.js"

export const limitsMax = 10_000

export const make: Effect.Effect<LimitStore["Type"]> = Effect.sync(() => {
  const rates = new Map<string, SlidingWindow | TokenBucket>()
  const holders = new Map<string, Map<string, number>>()

  const found = <A>(map: Map<string, A>, key: string, create: () => A) =>
    Effect.suspend(() => {
      const known = map.get(key)
      if (known !== undefined) return Effect.succeed(known)
      if (map.size >= limitsMax) {
        return new LimitsUnavailable({ operation: "grant", reason: `${map.size} limits are in use, the most that may` })
      }
      const created = create()
      map.set(key, created)
      return Effect.succeed(created)
    })
  const rateOf = (rule: RateRule) =>
    found(rates, JSON.stringify(rule), () =>
      rule.exactness === "strict"
        ? new SlidingWindow(rule.limit, rule.perMs)
        : new TokenBucket(rule.limit, rule.perMs, rule.burst))
  /** Those whose lease goes on. */
  const holdersOf = (rule: PermitRule, now: number) =>
    Effect.map(found(holders, rule.name, () => new Map<string, number>()), (held) => {
      for (const [holder, end] of held) if (end <= now) held.delete(holder)
      return held
    })

  return LimitStore.of({
    grant: (rule, request) =>
      Effect.zipWith(rateOf(rule), Clock.currentTimeNanos, (rate, now) => rate.grant(Number(now) / 1e6, request)),
    acquire: (rule, holder) =>
      Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        const held = yield* holdersOf(rule, now)
        if (!held.has(holder) && held.size >= rule.limit) {
          return { isHeld: false, waitMs: Math.min(...held.values()) - now }
        }
        held.set(holder, now + rule.leaseMs)
        return { isHeld: true, waitMs: 0 }
      }),
    renew: (rule, holder) =>
      Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        const held = yield* holdersOf(rule, now)
        if (!held.has(holder)) return false
        held.set(holder, now + rule.leaseMs)
        return true
      }),
    release: (rule, holder) => Effect.sync(() => void holders.get(rule.name)?.delete(holder))
  })
})

export const layer: Layer.Layer<LimitStore> = Layer.effect(LimitStore, make)
