/**
 * What a policy may say of retries beyond their delays: by the tag of the error, and how many there may be in sum. Plain data
 * of the policy text, so that the owner of a queue decides without the code of the task.
 */
import { Duration, Schema } from "effect"
import { RetryPolicy } from "./RetryPolicy.js"
import type { RunFailure } from "./Run.js"

/** Tags with a policy of their own in one task. */
export const tagsMax = 50
/** Longest tag, in characters. */
export const tagLengthMax = 200
/** Most retries of a budget in its period. */
export const budgetRetriesMax = 100_000
/** Shortest and longest period of a budget, ms. */
export const budgetPerMs = { min: 100, max: Duration.toMillis("1 day") }

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/** By the `_tag` of a typed error. "never": the run fails at the first of it. */
export const ByTag = Schema.Record({
  key: Schema.String.pipe(Schema.minLength(1), Schema.maxLength(tagLengthMax)),
  value: Schema.Union(RetryPolicy, Schema.Literal("never"))
}).pipe(Schema.filter((byTag) => Object.keys(byTag).length <= tagsMax || `at most ${tagsMax} tags`))

/** Whose retries count together. "task": all of the task's; else those of runs with the same key, or with the same first limit. */
export const BudgetScope = Schema.Literal("task", "fairnessKey", "orderingKey", "concurrency", "rateLimit")
export type BudgetScope = typeof BudgetScope.Type

export const RetryBudget = Schema.Struct({
  /** Retries in any period; up to twice as many right after a quiet one. */
  retries: Schema.Int.pipe(Schema.between(1, budgetRetriesMax)),
  perMs: Schema.Int.pipe(Schema.between(budgetPerMs.min, budgetPerMs.max)),
  /** Default "task". */
  by: optional(BudgetScope),
  /** What becomes of a run whose retry is one too many. Default "wait": its turn comes later. */
  onEmpty: optional(Schema.Literal("wait", "fail"))
})
export type RetryBudget = typeof RetryBudget.Type

/** The policy for this failure. */
export const policyFor = (
  policy: { readonly retry: RetryPolicy; readonly byTag?: typeof ByTag.Type },
  failure: RunFailure
): RetryPolicy | "never" => {
  const { byTag, retry } = policy
  if (byTag === undefined || failure.kind !== "failure" || !Object.hasOwn(byTag, failure.tag)) return retry
  return byTag[failure.tag]!
}
