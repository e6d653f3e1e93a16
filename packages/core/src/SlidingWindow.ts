/**
 * A limit that holds in every window, wherever it begins.
 *
 * A token granted at `t` for `valid` may be used at any time in [t, t + valid], so it counts as used in every window that
 * meets this interval: a grant fits when all tokens whose interval ends after `now - window`, and its own, are at most `limit`.
 * Any window that holds a use of it and of another token also holds the time between, so those are all that matter.
 *
 * Ends are kept per grid step, rounded up, a hundred steps a window: memory does not grow with the limit, and up to 1 % of a
 * window is given away. Pure; the time comes in.
 */
import type { RateGrant, RateRequest } from "./LimitStore.js"

export const stepsPerWindow = 100

export class SlidingWindow {
  /** Tokens by the grid step in which their last use may be. */
  private readonly ends = new Map<number, number>()
  private readonly grid: number

  constructor(public limit: number, private readonly window: number) {
    this.grid = window / stepsPerWindow
  }

  grant(now: number, { min, validMs, want }: RateRequest): RateGrant {
    const free = this.limit - this.used(now)
    if (free < min) return { granted: 0, waitMs: this.waitFor(min - free, now) }
    const granted = Math.min(want, free)
    const end = Math.ceil((now + validMs) / this.grid)
    this.ends.set(end, (this.ends.get(end) ?? 0) + granted)
    return { granted, waitMs: 0 }
  }

  /** Nobody knows what was used until then: it counts as more than any limit. */
  useUp(until: number): void {
    this.ends.set(Math.ceil(until / this.grid), Number.MAX_SAFE_INTEGER)
  }

  isIdle(now: number): boolean {
    return this.used(now) === 0
  }

  /** Forgets what no window can hold any more. */
  private used(now: number): number {
    let used = 0
    for (const [step, count] of this.ends) {
      if (step * this.grid <= now - this.window) this.ends.delete(step)
      else used += count
    }
    return used
  }

  private waitFor(missing: number, now: number): number {
    let left = missing
    for (const [step, count] of [...this.ends].sort(([a], [b]) => a - b)) {
      left -= count
      if (left <= 0) return step * this.grid + this.window - now
    }
    return this.window
  }
}
