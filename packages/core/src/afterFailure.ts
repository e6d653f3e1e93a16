/** What follows a failed attempt: another one, when; or the end, as what. */
import { type Entry, fraction, policyOf } from "./Entry.js"
import type { RetryBudgets } from "./RetryBudgets.js"
import * as RetryPolicy from "./RetryPolicy.js"
import { policyFor } from "./RetryRules.js"
import type { RunFailure } from "./Run.js"
import * as RunTimes from "./RunTimes.js"

export interface Failed {
  readonly failure: RunFailure
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined
}

export type Next =
  | { readonly _tag: "retry"; readonly at: number; readonly failure: string }
  | { readonly _tag: "end"; readonly state: "failed" | "expired"; readonly failure: string }

/** Longest wait for a turn of a retry budget: that of any retry, ms. */
const budgetWaitMsMax = 30 * 24 * 3600 * 1000

/**
 * A retry that could begin only when the deadline of the run is over is none: the run fails with what it failed of. An attempt
 * that was cut off by the deadline ends the run as expired.
 */
export const afterFailure = (entry: Entry, failed: Failed, now: number, budgets: RetryBudgets): Next => {
  const { failure } = failed
  const text = JSON.stringify(failure)
  if (failure.kind === "timeout" && failure.tag === RunTimes.tags.timeout && RunTimes.isCutByDeadline(entry)) {
    return { _tag: "end", state: "expired", failure: RunTimes.expiryText(entry, Infinity) }
  }
  const fail = (reason?: string): Next => ({
    _tag: "end",
    state: "failed",
    failure: reason === undefined ? text : JSON.stringify({ ...failure, message: `${failure.message} (${reason})` })
  })
  const delay = failed.retryable ? delayOf(entry, failed) : undefined
  if (delay === undefined) return fail()
  const by = RunTimes.endsBy(entry)
  if (now + delay >= by) return fail("not tried again: that would be after its deadline")
  const budget = policyOf(entry).retryBudget
  if (budget === undefined || entry.cancelRequested) return { _tag: "retry", at: now + delay, failure: text }
  const opensAt = budgets.opensAt(entry, budget, now)
  const at = Math.ceil(Math.max(now + delay, opensAt))
  if (opensAt > now && budget.onEmpty === "fail" || at - now > budgetWaitMsMax) {
    return fail(`not tried again: ${budget.retries} retries in ${budget.perMs} ms are used up`)
  }
  if (at >= by) return fail("not tried again: its turn would come after its deadline")
  budgets.take(entry, budget, now)
  return { _tag: "retry", at, failure: text }
}

const delayOf = (entry: Entry, { failure, retryAfterMs }: Failed): number | undefined => {
  const policy = policyFor(policyOf(entry), failure)
  if (policy === "never") return undefined
  const random = fraction(entry.id, entry.attempt)
  const delay = RetryPolicy.delayMs(policy, entry.attempt, random)
  // Never earlier than it was asked for; later by the jitter, so that not all come at once.
  return delay === undefined || retryAfterMs === undefined
    ? delay
    : Math.round(retryAfterMs * (1 + policy.jitter * random))
}
