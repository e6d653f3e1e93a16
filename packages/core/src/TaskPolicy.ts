/** What a task says of retries and times, as the policy that is stored with its runs. Contradictions are refused, naming both. */
import { Duration, Option, Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import { slotsPerRunMax } from "./Need.js"
import { RetryPolicy, standard } from "./RetryPolicy.js"
import type * as RetryRules from "./RetryRules.js"
import { delayMsMax, parsePolicy, type Retention, type RunPolicy, timeoutMsMax } from "./RunRequest.js"

/** The tags of a task's errors. */
export type TagOf<E> = E extends { readonly _tag: infer T extends string } ? T : never

/** Policies by the `_tag` of the error; a tag that no error of the task has does not compile. */
export interface RetryByTag<E> {
  /** For tags that are not named, for errors without one, for defects and timeouts. Default `RetryPolicy.standard`. */
  readonly default?: RetryPolicy
  /**
   * At most 50. `"never"`: no retry. Attempts are counted over all errors, and the policy of the last one says how many
   * there may be.
   */
  readonly byTag: [TagOf<E>] extends [never] ? never : { readonly [T in TagOf<E>]?: RetryPolicy | "never" }
}

export interface RetryBudget {
  /** Retries in each period, 1 to 100,000. First attempts do not count. */
  readonly retries: number
  /** 0.1 s to 1 day. */
  readonly per: Duration.DurationInput
  /**
   * Whose retries count together: all of the task's (default), those with the same fairness or ordering key, or those with the
   * same first `concurrency` or `rateLimit` (by name and key, so shared by the tasks of a queue).
   */
  readonly by?: RetryRules.BudgetScope
  /**
   * A retry too many: its turn comes later, at the rate of the budget (`"wait"`, the default), up to 30 days; or its run
   * fails at once (`"fail"`).
   */
  readonly onEmpty?: "wait" | "fail"
}

export interface RetryOptions<E> {
  /** Default: 5 attempts, 1 s doubling. Or by the tag of the error. */
  readonly retry?: RetryPolicy | RetryByTag<E>
  /** Bounds the retries of many runs together, so that a dependency that is down is not stormed. */
  readonly retryBudget?: RetryBudget
}

export interface TimeOptions {
  /** Of one attempt, from its start (start-to-close). Up to 30 days. Counts as a failed attempt. */
  readonly timeout?: Duration.DurationInput
  /** In line, from the time of the run to its first assignment (schedule-to-start). Then it expires. Up to 10 years. */
  readonly queueTtl?: Duration.DurationInput
  /** Of the run, from its enqueue, over all attempts and pauses (schedule-to-close). Then it expires. Up to 10 years. */
  readonly deadline?: Duration.DurationInput
  /**
   * Longest silence of a handler between two `Attempt.heartbeat`, kept by its worker. Counts as a failed attempt. Only for
   * handlers that call it.
   */
  readonly heartbeatTimeout?: Duration.DurationInput
}

export interface SlotOptions {
  /**
   * Slots that an attempt takes of its worker, 1 (default) to 1,000. It starts where so many are free at once; a worker that
   * has fewer in all is given none of its runs.
   */
  readonly slots?: number
}

export interface PolicyOptions<E> extends RetryOptions<E>, TimeOptions, SlotOptions {
  readonly retention?: Retention
  /** The schema of the task's errors, if it has one. */
  readonly error?: unknown
}

/** Keys a budget may count by. */
type Keyed = { readonly [Key in Exclude<RetryRules.BudgetScope, "task">]?: unknown }

export interface TaskPolicy {
  /** The default of `retry`. */
  readonly retry: RetryPolicy
  /** JSON text of the `RunPolicy`. */
  readonly text: string
  readonly deadlineMs: number | undefined
  readonly heartbeatMs: number | undefined
}

const isPolicy = Schema.is(RetryPolicy)

const refuse = (field: string, limit: string, actual: unknown): never => {
  throw new InvalidRequest({ field, limit, actual: String(actual) })
}

/** Throws `InvalidRequest` on a bad or contradictory option. */
export const make = <E>(
  options: PolicyOptions<E> & Keyed,
  more: Pick<RunPolicy, "identity" | "backlog" | "limiters"> = {}
): TaskPolicy => {
  const { byTag, retry } = retryOf(options)
  const timeoutMs = millis("timeout", options.timeout, 0, timeoutMsMax) ?? 0
  const queueTtlMs = millis("queueTtl", options.queueTtl, 1, delayMsMax)
  const deadlineMs = millis("deadline", options.deadline, 1, delayMsMax)
  const heartbeatMs = millis("heartbeatTimeout", options.heartbeatTimeout, 1, timeoutMsMax)
  shorter("heartbeatTimeout", heartbeatMs, "timeout", timeoutMs === 0 ? undefined : timeoutMs)
  shorter("heartbeatTimeout", heartbeatMs, "deadline", deadlineMs)
  shorter("timeout", timeoutMs, "deadline", deadlineMs, true)
  shorter("queueTtl", queueTtlMs, "deadline", deadlineMs, true)
  const retryBudget = budgetOf(options, [retry, ...Object.values(byTag ?? {})])
  const policy: RunPolicy = {
    retry,
    timeoutMs,
    // The default is left out: nearly all tasks then share one text.
    ...options.retention === "none" ? { retention: options.retention } : {},
    ...byTag === undefined ? {} : { byTag },
    ...retryBudget === undefined ? {} : { retryBudget },
    ...queueTtlMs === undefined ? {} : { queueTtlMs },
    ...deadlineMs === undefined ? {} : { deadlineMs },
    ...slotsOf(options),
    ...more
  }
  const text = JSON.stringify(policy)
  // What an owner would refuse is refused here.
  const parsed = parsePolicy(text)
  if (parsed instanceof InvalidRequest) throw parsed
  return { retry, text, deadlineMs, heartbeatMs }
}

const millis = (
  field: string,
  input: Duration.DurationInput | undefined,
  min: number,
  max: number
): number | undefined => {
  if (input === undefined) return undefined
  const duration = Option.getOrUndefined(Duration.decodeUnknown(input))
  const ms = duration === undefined ? Number.NaN : Math.round(Duration.toMillis(duration))
  return ms >= min && ms <= max ? ms : refuse(field, `${min} to ${max} ms`, input)
}

const slotsOf = ({ slots = 1 }: SlotOptions): Pick<RunPolicy, "slots"> => {
  if (!Number.isInteger(slots) || slots < 1 || slots > slotsPerRunMax) {
    refuse("slots", `an integer from 1 to ${slotsPerRunMax}`, slots)
  }
  return slots === 1 ? {} : { slots }
}

const shorter = (
  field: string,
  ms: number | undefined,
  than: string,
  bound: number | undefined,
  orEqual = false
): void => {
  if (ms === undefined || bound === undefined || ms < bound || (orEqual && ms === bound)) return
  refuse(field, `${orEqual ? "at most" : "shorter than"} the ${than}, ${bound} ms`, `${ms} ms`)
}

const retryOf = <E>({ error, retry = standard }: PolicyOptions<E>) => {
  if ("_tag" in retry) return { retry, byTag: undefined }
  const byTag = retry.byTag as Readonly<Record<string, RetryPolicy | "never">>
  const tags = Object.keys(byTag)
  if (tags.length > 0 && error === undefined) {
    refuse("retry.byTag", "absent without an error: the task has no tags", tags.join(", "))
  }
  const wrong = tags.find((tag) => byTag[tag] !== "never" && !isPolicy(byTag[tag]))
  if (wrong !== undefined) refuse(`retry.byTag.${wrong}`, "a RetryPolicy or \"never\"", byTag[wrong])
  return { retry: retry.default ?? standard, byTag: tags.length === 0 ? undefined : byTag }
}

const budgetOf = <E>(
  options: PolicyOptions<E> & Keyed,
  policies: ReadonlyArray<RetryPolicy | "never">
): RetryRules.RetryBudget | undefined => {
  const budget = options.retryBudget
  if (budget === undefined) return undefined
  if (policies.every((policy) => policy === "never" || policy.maxAttempts === 1)) {
    refuse("retryBudget", "absent when retry allows one attempt only", "a budget")
  }
  const { by = "task", onEmpty = "wait", retries } = budget
  if (by !== "task" && options[by] === undefined) refuse("retryBudget.by", `task, as the task has no ${by}`, by)
  const perMs = millis("retryBudget.per", budget.per, 100, 24 * 3600 * 1000)!
  if (!Number.isInteger(retries) || retries < 1 || retries > 100_000) {
    refuse("retryBudget.retries", "an integer from 1 to 100000", retries)
  }
  return { retries, perMs, ...by === "task" ? {} : { by }, ...onEmpty === "wait" ? {} : { onEmpty } }
}
