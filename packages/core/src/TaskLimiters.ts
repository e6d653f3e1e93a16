/** How a task names limits that span queues: its policy says which they are, and its keys what a start costs where that differs. */
import type { ConcurrencyLimiter } from "./ConcurrencyLimiter.js"
import { InvalidRequest } from "./Errors.js"
import { limitersPerTaskMax, type LimiterTerms } from "./LimiterTerms.js"
import type { RateLimiter } from "./RateLimiter.js"

export type StartLimiter<P> = RateLimiter<P> | RateLimiter<void> | ConcurrencyLimiter

export interface LimiterOptions<P> {
  /**
   * Limits shared with the tasks of other queues: a run starts when each of them has room, and while it waits for it, it holds
   * up runs of its task only. At most 4, each of another name. The `waitMax` of a limiter is for its other uses: a run
   * waits in line, for `queueTtl` if that is given.
   */
  readonly limiters?: StartLimiter<P> | ReadonlyArray<StartLimiter<P>>
}

export interface TaskLimiters<P> {
  readonly terms: ReadonlyArray<LimiterTerms> | undefined
  /** `undefined`: a start always costs what `terms` say. */
  readonly costsOf: ((payload: P) => Readonly<Record<string, number>> | InvalidRequest) | undefined
}

/** Throws `InvalidRequest` on a bad definition. */
export const make = <P>({ limiters }: LimiterOptions<P>): TaskLimiters<P> => {
  const list = limiters === undefined ? [] : Array.isArray(limiters)
    ? limiters as ReadonlyArray<StartLimiter<P>>
    : [limiters as StartLimiter<P>]
  if (list.length === 0) return { terms: undefined, costsOf: undefined }
  if (list.length > limitersPerTaskMax) throw invalid("limiters", `at most ${limitersPerTaskMax}`, list.length)
  const names = list.map(({ terms }) => terms.name)
  const twice = names.find((name, at) => names.indexOf(name) !== at)
  if (twice !== undefined) throw invalid("limiters", "each of another name", twice)
  const priced = list.flatMap((limiter) =>
    "costOf" in limiter && limiter.costOf !== undefined
      ? [{ name: limiter.terms.name, costOf: limiter.costOf as (payload: P) => number | InvalidRequest }]
      : []
  )
  const costsOf = (payload: P): Readonly<Record<string, number>> | InvalidRequest => {
    const costs: Record<string, number> = {}
    for (const { costOf, name } of priced) {
      const cost = costOf(payload)
      if (typeof cost !== "number") return cost
      costs[name] = cost
    }
    return costs
  }
  return { terms: list.map(({ terms }) => terms), costsOf: priced.length === 0 ? undefined : costsOf }
}

const invalid = (field: string, limit: string, actual: unknown) =>
  new InvalidRequest({ field, limit, actual: String(actual) })
