/**
 * Limits that span queues, as the policy of a run says them: before it starts, its owner must have room of each. The same rules as
 * those of `RateLimiter` and `ConcurrencyLimiter`, which make them.
 */
import { Schema } from "effect"
import type { PermitRule, RateRule } from "./LimitStore.js"
import { Name } from "./Name.js"

/** Limiters of one task. */
export const limitersPerTaskMax = 4
/** Tokens per window, and with it of one start. */
export const tokensMax = 1_000_000
/** Shortest window, and the longest of a strict and of a relaxed rate, ms. */
export const rateMs = { min: 100, strictMax: 60_000, relaxedMax: 31 * 24 * 3_600_000 }
/** Permits of one limiter. */
export const permitsMax = 10_000
/** How long a permit outlives who holds it, ms. */
export const permitLeaseMs = { min: 1_000, max: 3_600_000 }

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })
const Tokens = Schema.Int.pipe(Schema.between(1, tokensMax))

const shared = {
  name: Name,
  /** Default "strict". */
  exactness: optional(Schema.Literal("relaxed")),
  /** Default "closed". */
  whenGone: optional(Schema.Literal("open"))
}

/** At most `limit` tokens in `perMs`. */
export const RateTerms = Schema.Struct({
  kind: Schema.Literal("rate"),
  ...shared,
  limit: Tokens,
  perMs: Schema.Number.pipe(Schema.between(rateMs.min, rateMs.relaxedMax)),
  /** Relaxed only, where it has one: tokens that may be used at once after a rest. */
  burst: optional(Tokens),
  /** Tokens of one start; where the run says another one (`RunKeys.costs`), that. Default 1. */
  cost: optional(Tokens)
}).pipe(
  Schema.filter(({ exactness, perMs }) =>
    exactness === "relaxed" || perMs <= rateMs.strictMax || `a strict rate is over at most ${rateMs.strictMax} ms`
  )
)
export type RateTerms = typeof RateTerms.Type

/** At most `limit` attempts at once. */
export const PermitTerms = Schema.Struct({
  kind: Schema.Literal("permit"),
  ...shared,
  limit: Schema.Int.pipe(Schema.between(1, permitsMax)),
  leaseMs: Schema.Number.pipe(Schema.between(permitLeaseMs.min, permitLeaseMs.max))
})
export type PermitTerms = typeof PermitTerms.Type

export const LimiterTerms = Schema.Union(RateTerms, PermitTerms)
export type LimiterTerms = typeof LimiterTerms.Type

/** As the store of limits knows it. The order of the fields is that of `RateLimiter.make`: they are one limit. */
export const rateRuleOf = ({ burst = Infinity, exactness, limit, name, perMs }: RateTerms): RateRule => (
  {
    name,
    limit,
    perMs,
    exactness: exactness ?? "strict",
    burst: exactness === undefined ? limit : Math.min(burst, limit)
  }
)

export const permitRuleOf = ({ exactness, leaseMs, limit, name }: PermitTerms): PermitRule => (
  { name, limit, leaseMs, exactness: exactness ?? "strict" }
)
