import { Context, type Effect, Schema } from "effect"

/** So many tokens in so much time. */
export interface RateRule {
  readonly name: string
  /** Tokens. */
  readonly limit: number
  /** Per so many ms. */
  readonly perMs: number
  /**
   * `strict`: in every window of `perMs`, wherever it begins, at most `limit` tokens are used.
   * `relaxed`: a token bucket; in any time t at most `burst + limit * (t + valid) / perMs`, `valid` as granted with.
   */
  readonly exactness: "strict" | "relaxed"
  /** Tokens that may be used at once after a rest. Relaxed only. */
  readonly burst: number
}

export interface RateRequest {
  /** Fewer are of no use. At most `limit` (relaxed: `burst`). */
  readonly min: number
  readonly want: number
  /** Tokens will be used within this from before the request, or not at all. Strict: at most a quarter of the window. */
  readonly validMs: number
}

export interface RateGrant {
  /** 0, or `min` to `want`. */
  readonly granted: number
  /** With 0: `min` may be there after this, if nobody is faster. */
  readonly waitMs: number
}

/** So many at a time. */
export interface PermitRule {
  readonly name: string
  readonly limit: number
  readonly leaseMs: number
  /** `strict`: also when the store has lost its memory. `relaxed`: then up to `limit` more, for one lease. */
  readonly exactness: "strict" | "relaxed"
}

export interface PermitGrant {
  readonly isHeld: boolean
  /** When it is not: the first lease ends after this, if it is not renewed. */
  readonly waitMs: number
}

/** Limits cannot be asked for. What was asked may or may not have been granted. */
export class LimitsUnavailable
  extends Schema.TaggedError<LimitsUnavailable>("@orrery/core/LimitsUnavailable")("LimitsUnavailable", {
    operation: Schema.String,
    reason: Schema.String
  })
{
  override get message() {
    return `limits unavailable in ${this.operation}: ${this.reason}`
  }
}

/**
 * PORT. Who has used how much of what is shared by all processes. Adapters pass `limitStoreContract` in @orrery/testing. Time is
 * the store's own; one call each, decided at once.
 */
export class LimitStore extends Context.Tag("@orrery/core/LimitStore")<LimitStore, {
  /** `strict`: a store that does not know what was granted before grants nothing for one `perMs`. */
  readonly grant: (rule: RateRule, request: RateRequest) => Effect.Effect<RateGrant, LimitsUnavailable>
  /** `holder`: unique. Held already: for another lease. */
  readonly acquire: (rule: PermitRule, holder: string) => Effect.Effect<PermitGrant, LimitsUnavailable>
  /** False: the lease had ended, and another may hold it. */
  readonly renew: (rule: PermitRule, holder: string) => Effect.Effect<boolean, LimitsUnavailable>
  /** Idempotent. */
  readonly release: (rule: PermitRule, holder: string) => Effect.Effect<void, LimitsUnavailable>
}>() {}

/**
 * What is shared by all owners of queues, where something is: they borrow of it for the starts of their runs. `undefined`: nothing
 * is; then a cluster keeps such limits by its limiter actors, and a single process by itself.
 */
export class SharedLimits extends Context.Reference<SharedLimits>()("@orrery/core/SharedLimits", {
  defaultValue: (): LimitStore["Type"] | undefined => undefined
}) {}
