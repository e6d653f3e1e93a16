/** How a task tells with whom its runs share a turn: functions of the payload, turned into `RunKeys`. */
import { Duration, Option } from "effect"
import { InvalidRequest } from "./Errors.js"
import { namePattern } from "./Name.js"
import {
  backfillLimit,
  type ConcurrencyKey,
  concurrencyMax,
  keyLengthMax,
  keysLengthMax,
  limitsPerRunMax,
  OnFull,
  type RateKey,
  rateLimitMax,
  ratePeriodMsMax,
  type RunKeys,
  weightMax
} from "./RunKeys.js"
import type { TaskLimiters } from "./TaskLimiters.js"

/** Tasks of one queue whose limits have the same name share them, key by key. */
interface Shared<P> {
  /** Default: the task's name, so that the limit is the task's own. */
  readonly name?: string
  /** Runs with the same key share the limit. Default: all runs of the name do. */
  readonly key?: (payload: P) => string
}

export interface ConcurrencyLimit<P> extends Shared<P> {
  /** Attempts at once, 1 to 100,000. */
  readonly limit: number
  /**
   * A run for which there is no permit waits (the default); or is cancelled (`cancelNewest`, final state `cancelled`, failure
   * `ConcurrencyFull`); or the oldest one with the key is, and makes room (`cancelRunning`, `ConcurrencyReplaced`).
   */
  readonly onFull?: OnFull
}

export interface RateLimit<P> extends Shared<P> {
  /** Starts in each period, 1 to 10,000. */
  readonly limit: number
  /** 1 ms to 1 day. */
  readonly per: Duration.DurationInput
  /** How much of the limit one start takes. Default 1. */
  readonly cost?: number
  /** `window` (default): never more than `limit` in any period. `bucket`: refills evenly, so a quiet time allows a burst. */
  readonly algorithm?: "window" | "bucket"
}

export interface KeyOptions<P> {
  /** At most 4. A run starts when all of them allow it. */
  readonly concurrency?: ConcurrencyLimit<P> | ReadonlyArray<ConcurrencyLimit<P>>
  /** At most 4. */
  readonly rateLimit?: RateLimit<P> | ReadonlyArray<RateLimit<P>>
  /**
   * Runs of one queue with the same key are executed one after the other in the order of their enqueues, whatever their task
   * and priority. One that is retried, or whose time is to come, holds up those behind it: of its key only.
   */
  readonly orderingKey?: (payload: P) => string
  /** Runs with different keys take turns within their queue, however many there are of each. */
  readonly fairnessKey?: (payload: P) => string
  /** Turns of a fairness key for one of a key with weight 1: 1 (default) to 1,000. */
  readonly fairnessWeight?: (payload: P) => number
}

/** Instead of what the task says, for one call. */
export interface KeyOverrides {
  readonly orderingKey?: string
  readonly fairnessKey?: string
}

const invalid = (field: string, limit: string, actual: unknown) =>
  new InvalidRequest({
    field,
    limit,
    actual: typeof actual === "string" ? JSON.stringify(actual.slice(0, 250)) : String(actual)
  })

const listOf = <A>(one: A | ReadonlyArray<A> | undefined): ReadonlyArray<A> =>
  one === undefined ? [] : Array.isArray(one) ? one as ReadonlyArray<A> : [one as A]

const keyText = (field: string, value: unknown): string => {
  if (typeof value !== "string" || value.length === 0 || value.length > keyLengthMax || value.includes("\u0000")) {
    throw invalid(field, `a text of 1 to ${keyLengthMax} characters without NUL`, value)
  }
  return value
}

const whole = (field: string, value: number, max: number): number => {
  if (!Number.isInteger(value) || value < 1 || value > max) throw invalid(field, `an integer from 1 to ${max}`, value)
  return value
}

/** The key of a limit that all runs share. */
const everyone = "*"

/** `behind`: an ordering key that the task's identity asks for. */
type KeysOf<P> = (payload: P, overrides: KeyOverrides, behind?: string) => string | null | InvalidRequest

/** Throws `InvalidRequest` on a bad definition; what it answers never throws for a bad key, but answers the error. */
export const make = <P>(
  task: string,
  options: KeyOptions<P>,
  costsOf?: TaskLimiters<P>["costsOf"]
): KeysOf<P> => {
  const limits = listOf(options.concurrency).map(concurrencyOf(task))
  const rates = listOf(options.rateLimit).map(rateOf(task))
  for (const [field, list] of [["concurrency", limits], ["rateLimit", rates]] as const) {
    if (list.length > limitsPerRunMax) throw invalid(field, `at most ${limitsPerRunMax} limits`, list.length)
    const names = list.map(({ name }) => name)
    const twice = names.find((name, at) => names.indexOf(name) !== at)
    if (twice !== undefined) throw invalid(`${field}.name`, "another one for each limit of a task", twice)
  }
  const { fairnessKey, fairnessWeight, orderingKey } = options
  if (fairnessWeight !== undefined && fairnessKey === undefined) {
    throw invalid("fairnessWeight", "absent without a fairnessKey", "a function")
  }
  const isPlain = limits.length === 0 && rates.length === 0 && orderingKey === undefined
    && fairnessKey === undefined && costsOf === undefined
  const textOf = (payload: P, overrides: KeyOverrides, behind: string | undefined): string => {
    if (behind !== undefined && overrides.orderingKey !== undefined) {
      throw invalid("orderingKey", "absent for a task with keepLast, which orders the runs of its key", "given")
    }
    const order = behind ?? overrides.orderingKey ?? orderingKey?.(payload)
    const tenant = overrides.fairnessKey ?? fairnessKey?.(payload)
    const costs = costsOf?.(payload)
    if (costs instanceof InvalidRequest) throw costs
    const keys: RunKeys = {
      ...order === undefined ? {} : { order: keyText("orderingKey", order) },
      ...tenant === undefined ? {} : { tenant: keyText("fairnessKey", tenant) },
      ...fairnessWeight === undefined ? {} : { weight: whole("fairnessWeight", fairnessWeight(payload), weightMax) },
      ...limits.length === 0 ? {} : { limits: limits.map((limit) => limit.of(payload)) },
      ...rates.length === 0 ? {} : { rates: rates.map((rate) => rate.of(payload)) },
      ...costs === undefined ? {} : { costs }
    }
    const text = JSON.stringify(keys)
    if (text.length > keysLengthMax) throw invalid("keys", `at most ${keysLengthMax} characters in sum`, text.length)
    return text
  }
  return (payload, overrides, behind) => {
    const isTold = behind !== undefined || overrides.orderingKey !== undefined || overrides.fairnessKey !== undefined
    if (isPlain && !isTold) return null
    try {
      return textOf(payload, overrides, behind)
    } catch (error) {
      if (error instanceof InvalidRequest) return error
      throw error
    }
  }
}

const nameOf = (field: string, task: string, { name = task }: { readonly name?: string }): string => {
  if (!namePattern.test(name)) throw invalid(`${field}.name`, "1 to 200 characters of A-Z a-z 0-9 _ . : / -", name)
  if (name === backfillLimit.name) throw invalid(`${field}.name`, "another one: schedules use this", name)
  return name
}

const concurrencyOf = (task: string) => <P>(option: ConcurrencyLimit<P>) => {
  const name = nameOf("concurrency", task, option)
  const limit = whole("concurrency.limit", option.limit, concurrencyMax)
  const { key, onFull } = option
  if (onFull !== undefined && !OnFull.literals.includes(onFull)) {
    throw invalid("concurrency.onFull", `one of ${OnFull.literals.join(", ")}`, onFull)
  }
  const rest = onFull === undefined || onFull === "wait" ? { limit } : { limit, onFull }
  return {
    name,
    of: (payload: P): ConcurrencyKey => (
      { name, key: key === undefined ? everyone : keyText("concurrency.key", key(payload)), ...rest }
    )
  }
}

const rateOf = (task: string) => <P>(option: RateLimit<P>) => {
  const name = nameOf("rateLimit", task, option)
  const limit = whole("rateLimit.limit", option.limit, rateLimitMax)
  const per = Option.getOrUndefined(Duration.decodeUnknown(option.per))
  const perMs = per === undefined ? Number.NaN : Duration.toMillis(per)
  if (!Number.isInteger(perMs) || perMs < 1 || perMs > ratePeriodMsMax) {
    throw invalid("rateLimit.per", `1 to ${ratePeriodMsMax} ms`, option.per)
  }
  const { algorithm, key } = option
  if (algorithm !== undefined && algorithm !== "window" && algorithm !== "bucket") {
    throw invalid("rateLimit.algorithm", "window or bucket", algorithm)
  }
  const cost = option.cost === undefined ? undefined : whole("rateLimit.cost", option.cost, limit)
  const rest = {
    limit,
    perMs,
    ...cost === undefined || cost === 1 ? {} : { cost },
    ...algorithm === undefined || algorithm === "window" ? {} : { algorithm }
  }
  return {
    name,
    of: (payload: P): RateKey => (
      { name, key: key === undefined ? everyone : keyText("rateLimit.key", key(payload)), ...rest }
    )
  }
}
