/**
 * How many runs of a partition are not final, in all and of each tenant, so that a bound of them is kept exactly without counting
 * rows for every enqueue.
 *
 * Nothing is counted before a run comes whose task has a bound. Then the owner lets no commit out until the store has counted once;
 * from there on each insert and each end that is committed is one more or less. The count stops at twice the bound: beyond it all
 * that is known is that there are at least so many, which is enough to refuse. By the time enough of them have ended that it is not
 * enough any more, as many have ended as the bound is, and it is counted again.
 */
import { QueueFull, QuotaExceeded } from "./Errors.js"
import { parseKeys } from "./RunKeys.js"
import type { Backlog } from "./RunRequest.js"

/** Runs of one partition that are not final, by their keys. */
export interface CountedRuns {
  readonly groups: ReadonlyArray<{ readonly keys: string | null; readonly runs: number }>
  /** All have been counted; else as many as were asked for. */
  readonly complete: boolean
}

const retryMs = { min: 50, max: 10_000, default: 1_000 }

export class Depths {
  private total = 0
  private readonly tenants = new Map<string, number>()
  private isComplete = false
  /** Changes are counted. */
  isOn = false
  private lastEndAt = Number.NaN
  /** Mean time between two ends, ms. */
  private endEveryMs = Number.NaN

  constructor(private readonly name: { readonly namespace: string; readonly queue: string }) {}

  /** The store has counted, while nothing was on its way to it. `arriving`: keys of runs that are not there yet. */
  begin(counted: CountedRuns, arriving: Iterable<string | null>): void {
    this.isOn = true
    this.isComplete = counted.complete
    this.total = 0
    this.tenants.clear()
    for (const { keys, runs } of counted.groups) this.add(keys, runs)
    for (const keys of arriving) this.add(keys, 1)
  }

  /** A run is on its way to the store. */
  took(keys: string | null): void {
    if (this.isOn) this.add(keys, 1)
  }

  /** It was not made. */
  gaveBack(keys: string | null): void {
    if (this.isOn) this.add(keys, -1)
  }

  /** Its end is committed. */
  ended(keys: string | null, now: number): void {
    if (!this.isOn) return
    this.add(keys, -1)
    const since = now - this.lastEndAt
    this.lastEndAt = now
    if (Number.isNaN(since)) return
    this.endEveryMs = Number.isNaN(this.endEveryMs) ? since : this.endEveryMs * 0.95 + since * 0.05
  }

  /** Why a run may not come in; `count`: the runs must be counted first, up to `countUpTo`. `undefined`: it may. */
  refusal(
    { maxDepth, maxDepthPerTenant }: Backlog,
    keys: string | null
  ): QueueFull | QuotaExceeded | "count" | undefined {
    if (!this.isOn) return "count"
    const { namespace, queue } = this.name
    if (this.total >= maxDepth) {
      const actual = this.total
      return new QueueFull({
        namespace,
        queue,
        limit: maxDepth,
        actual,
        retryAfterMs: this.retryAfterMs(actual - maxDepth)
      })
    }
    const tenant = maxDepthPerTenant === undefined ? undefined : tenantOf(keys)
    if (maxDepthPerTenant !== undefined && tenant !== undefined) {
      const actual = this.tenants.get(tenant) ?? 0
      if (actual >= maxDepthPerTenant) {
        const retryAfterMs = this.retryAfterMs(actual - maxDepthPerTenant)
        return new QuotaExceeded({ namespace, queue, tenant, limit: maxDepthPerTenant, actual, retryAfterMs })
      }
    }
    return this.isComplete ? undefined : "count"
  }

  private retryAfterMs(over: number): number {
    if (Number.isNaN(this.endEveryMs)) return retryMs.default
    return Math.round(Math.min(retryMs.max, Math.max(retryMs.min, this.endEveryMs * (over + 1))))
  }

  private add(keys: string | null, runs: number): void {
    this.total += runs
    const tenant = tenantOf(keys)
    if (tenant === undefined) return
    const count = (this.tenants.get(tenant) ?? 0) + runs
    if (count <= 0) this.tenants.delete(tenant)
    else this.tenants.set(tenant, count)
  }
}

/** Up to where the runs of a partition are counted for this bound. */
export const countUpTo = ({ maxDepth }: Backlog): number => 2 * maxDepth

const tenantOf = (keys: string | null): string | undefined => {
  if (keys === null) return undefined
  const parsed = parseKeys(keys)
  return "_tag" in parsed ? undefined : parsed.tenant
}
