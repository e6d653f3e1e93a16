/**
 * How many retries there may be in a time, over all runs that share a budget: a dependency that is down is not stormed by
 * those that it has failed. A token bucket per key, kept as the instant at which it is full again (GCRA).
 *
 * A new owner begins with empty buckets. The retries that were put off before have their instants in their rows and keep them;
 * so until those are over there may be twice as many, and never more.
 *
 * Bounded: `keysMax` keys that are not full; runs of further ones share one bucket.
 */
import type { Entry } from "./Entry.js"
import type { RetryBudget } from "./RetryRules.js"
import * as TaskName from "./TaskName.js"

/** Keys with retries of late, in one partition. */
export const keysMax = 20_000
const sharedKey = ""

export class RetryBudgets {
  private readonly fullAt = new Map<string, number>()

  /** `takenOverAt`: when the partition had another owner before; `undefined`: never. */
  constructor(private readonly takenOverAt: number | undefined, private readonly limit = keysMax) {}

  /** When the next retry may be, ms: `now`, or later. */
  opensAt(entry: Entry, budget: RetryBudget, now: number): number {
    const { perMs, retries } = budget
    return Math.max(now, this.fullFrom(this.keyOf(entry, budget, now), budget, now) + perMs / retries - perMs)
  }

  /** One retry more has been granted, for whenever it is. */
  take(entry: Entry, budget: RetryBudget, now: number): void {
    const key = this.keyOf(entry, budget, now)
    this.fullAt.set(key, this.fullFrom(key, budget, now) + budget.perMs / budget.retries)
  }

  private fullFrom(key: string, { perMs }: RetryBudget, now: number): number {
    const known = this.fullAt.get(key) ?? (this.takenOverAt === undefined ? now : this.takenOverAt + perMs)
    return Math.max(known, now)
  }

  private keyOf(entry: Entry, { by = "task" }: RetryBudget, now: number): string {
    const key = scopeOf(entry, by)
    if (this.fullAt.has(key) || this.fullAt.size < this.limit) return key
    for (const [each, at] of this.fullAt) if (at <= now) this.fullAt.delete(each)
    return this.fullAt.size < this.limit ? key : sharedKey
  }
}

/** Limits of one name are shared by the tasks of a queue, and so is their budget. */
const scopeOf = ({ task: versioned, told }: Entry, by: NonNullable<RetryBudget["by"]>): string => {
  const task = TaskName.nameOf(versioned)
  switch (by) {
    case "task":
      return task
    case "fairnessKey":
      return `${task}|t|${told?.tenant ?? ""}`
    case "orderingKey":
      return `${task}|o|${told?.order ?? ""}`
    case "concurrency":
      return `|c|${nameOf(told?.limits?.[0])}`
    case "rateLimit":
      return `|r|${nameOf(told?.rates?.[0])}`
  }
}

const nameOf = (limit: { readonly name: string; readonly key: string } | undefined): string =>
  limit === undefined ? "" : `${limit.name}|${limit.key}`
