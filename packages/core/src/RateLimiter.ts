/** A limit on how often, shared by every queue and every process that names it. */
import { Duration, Effect, Option } from "effect"
import { InvalidRequest, type LimitNotGranted } from "./Errors.js"
import { rateMs, type RateTerms, tokensMax } from "./LimiterTerms.js"
import { Limits, type WhenGone } from "./Limits.js"
import type { RateRule } from "./LimitStore.js"
import { isName } from "./Name.js"
import type { RateLine } from "./RateLine.js"

export interface RateLimiterOptions<I> {
  /** Tokens per `per`, 1 to 1,000,000. */
  readonly limit: number
  /** 100 ms to 1 min where strict, to 31 days where relaxed. */
  readonly per: Duration.DurationInput
  /** Tokens of one use, a whole number of at least 1; default 1. */
  readonly cost?: number | ((input: I) => number)
  /**
   * `strict` (default): never more than `limit` in any window of `per`, wherever it begins. Costs up to 5 % of the limit; a
   * keeper that has lost its memory (a new one, a restart, a fail-over) lets nothing through for 1.25 `per`.
   *
   * `relaxed`: a token bucket; in any window of `per` at most `burst + 1.1 * limit`, and once more `burst` after the store
   * has lost its memory. Tokens are fetched ahead, so most uses wait for nobody.
   */
  readonly exactness?: "strict" | "relaxed"
  /** Relaxed: tokens that may be used at once after a rest, 1 to `limit`. Default: a tenth of `limit`, at least one `cost`. */
  readonly burst?: number
  /**
   * When limits cannot be asked for, of Redis or of the cluster: `closed` (default) lets nothing through, `open` lets each
   * process have the whole limit for itself.
   */
  readonly whenGone?: WhenGone
  /** Longest wait of a use; default 1 min. */
  readonly waitMax?: Duration.DurationInput
}

export interface RateLimiter<I = void> {
  readonly rule: RateRule
  /** As a task says it of its runs (`limiters`). With `costOf`: what a start costs is told with each. */
  readonly terms: RateTerms
  /** `undefined`: always the cost of `terms`. */
  readonly costOf: ((input: I) => number | InvalidRequest) | undefined
  /** Waits until it may be done; then it must be done at once. Fails with `LimitNotGranted` after `waitMax`. */
  readonly take: (input: I) => Effect.Effect<void, LimitNotGranted | InvalidRequest, Limits>
  /** Whether it may be done at once. Waits for one answer at most. */
  readonly tryTake: (input: I) => Effect.Effect<boolean, InvalidRequest, Limits>
}

const waitMaxDefault = "1 minute"
/** Of the limit. */
const burstShare = 0.1

/** The same name names the same limit everywhere. Throws `InvalidRequest` on a wrong definition: a mistake in the program. */
export const make = <I = void>(name: string, options: RateLimiterOptions<I>): RateLimiter<I> => {
  const { cost = 1, exactness = "strict", limit, whenGone = "closed" } = options
  if (!isName(name)) throw invalid("name", "1 to 200 of A-Z a-z 0-9 _ . : / -", name)
  if (!isWhole(limit, 1, tokensMax)) throw invalid("limit", `a whole number, 1 to ${tokensMax}`, limit)
  const perMs = millis("per", options.per, rateMs.min, exactness === "strict" ? rateMs.strictMax : rateMs.relaxedMax)
  const waitMaxMs = millis("waitMax", options.waitMax ?? waitMaxDefault, 0, rateMs.relaxedMax)
  const least = typeof cost === "number" ? cost : 1
  const burst = options.burst ?? Math.min(limit, Math.max(Math.ceil(limit * burstShare), least))
  if (!isWhole(burst, 1, limit)) throw invalid("burst", `a whole number, 1 to limit (${limit})`, burst)
  const rule: RateRule = { name, limit, perMs, exactness, burst: exactness === "strict" ? limit : burst }
  if (typeof cost === "number" && !isWhole(cost, 1, rule.burst)) throw costInvalid(rule, cost)

  const costOf = typeof cost === "number" ? undefined : (input: I): number | InvalidRequest => {
    const tokens = cost(input)
    return isWhole(tokens, 1, rule.burst) ? tokens : costInvalid(rule, tokens)
  }
  const use = <A, E>(input: I, run: (line: RateLine, cost: number) => Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const tokens = typeof cost === "number" ? cost : costOf!(input)
      if (typeof tokens !== "number") return yield* tokens
      const limits = yield* Limits
      return yield* run(yield* limits.rate(rule, whenGone), tokens)
    })

  return {
    rule,
    terms: {
      kind: "rate",
      name,
      limit,
      perMs,
      ...exactness === "strict" ? {} : { exactness, burst },
      ...whenGone === "closed" ? {} : { whenGone },
      ...typeof cost !== "number" || cost === 1 ? {} : { cost }
    },
    costOf,
    take: (input) => use(input, (line, tokens) => line.take(tokens, waitMaxMs)),
    tryTake: (input) => use(input, (line, tokens) => line.tryTake(tokens))
  }
}

const isWhole = (value: unknown, min: number, max: number): value is number =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= max

const invalid = (field: string, limit: string, actual: unknown) =>
  new InvalidRequest({ field, limit, actual: String(actual).slice(0, 200) })

const costInvalid = ({ burst, exactness }: RateRule, cost: number) =>
  invalid("cost", `a whole number, 1 to ${exactness === "strict" ? "limit" : "burst"} (${burst})`, cost)

/** Throws when it is none, or out of bounds. */
export const millis = (field: string, input: Duration.DurationInput, min: number, max: number): number => {
  const ms = Option.match(Duration.decodeUnknown(input), { onNone: () => NaN, onSome: Duration.toMillis })
  if (!(ms >= min && ms <= max)) throw invalid(field, `a duration of ${min} to ${max} ms`, JSON.stringify(input))
  return ms
}
