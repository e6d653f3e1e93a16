/** A limit on how many at a time, shared by every queue and every process that names it. */
import { type Duration, Effect } from "effect"
import { InvalidRequest, type LimitNotGranted, type PermitLost } from "./Errors.js"
import { permitLeaseMs, permitsMax, type PermitTerms } from "./LimiterTerms.js"
import { Limits, type WhenGone } from "./Limits.js"
import type { PermitRule } from "./LimitStore.js"
import { isName } from "./Name.js"
import { millis } from "./RateLimiter.js"

export interface ConcurrencyLimiterOptions {
  /** At a time, 1 to 10,000. */
  readonly limit: number
  /**
   * How long a permit outlives a holder that has died, 1 s to 1 h; default 10 s. Renewed three times in that time.
   */
  readonly lease?: Duration.DurationInput
  /**
   * `strict` (default): never more than `limit`, as long as clocks tick alike; a store that has lost its memory gives nothing
   * for one `lease`, while the holders there are make themselves known. `relaxed`: then up to `limit` more, for one lease.
   */
  readonly exactness?: "strict" | "relaxed"
  /**
   * When limits cannot be asked for: `closed` (default) gives nothing, and interrupts holders whose lease ends; `open` lets
   * holders go on, and each process have the whole limit for itself.
   */
  readonly whenGone?: WhenGone
  /** Longest wait for a permit; default 1 min. */
  readonly waitMax?: Duration.DurationInput
}

export interface ConcurrencyLimiter {
  readonly rule: PermitRule
  /** As a task says it of its runs (`limiters`). */
  readonly terms: PermitTerms
  /** Runs the effect with a permit, which is given back when it ends, however it ends. */
  readonly withPermit: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | LimitNotGranted | PermitLost | InvalidRequest, R | Limits>
}

const waitMsMax = 31 * 24 * 3_600_000

/** The same name names the same limit everywhere. Throws `InvalidRequest` on a wrong definition: a mistake in the program. */
export const make = (name: string, options: ConcurrencyLimiterOptions): ConcurrencyLimiter => {
  const { exactness = "strict", limit, whenGone = "closed" } = options
  if (!isName(name)) {
    throw new InvalidRequest({ field: "name", limit: "1 to 200 of A-Z a-z 0-9 _ . : / -", actual: String(name) })
  }
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= permitsMax)) {
    throw new InvalidRequest({ field: "limit", limit: `a whole number, 1 to ${permitsMax}`, actual: String(limit) })
  }
  const leaseMs = millis("lease", options.lease ?? "10 seconds", permitLeaseMs.min, permitLeaseMs.max)
  const waitMaxMs = millis("waitMax", options.waitMax ?? "1 minute", 0, waitMsMax)
  const rule: PermitRule = { name, limit, leaseMs, exactness }
  return {
    rule,
    terms: {
      kind: "permit",
      name,
      limit,
      leaseMs,
      ...exactness === "strict" ? {} : { exactness },
      ...whenGone === "closed" ? {} : { whenGone }
    },
    withPermit: (effect) =>
      Effect.flatMap(
        Limits,
        (limits) => Effect.flatMap(limits.permits(rule, whenGone), (line) => line.hold(effect, waitMaxMs))
      )
  }
}
