/** A token bucket kept as one number: the time at which it would be full again (GCRA). Pure; the time comes in. */
import type { RateGrant, RateRequest } from "./LimitStore.js"

/** What rounding may take from a token. */
const epsilon = 1e-6

export class TokenBucket {
  private fullAt = 0

  constructor(public limit: number, private readonly window: number, public burst: number) {}

  /** It is full. */
  isIdle(now: number): boolean {
    return this.fullAt <= now
  }

  grant(now: number, { min, want }: RateRequest): RateGrant {
    const each = this.window / this.limit
    const depth = this.burst * each
    const fullAt = Math.min(Math.max(this.fullAt, now), now + depth)
    const free = Math.floor((depth - (fullAt - now)) / each + epsilon)
    if (free < min) return { granted: 0, waitMs: fullAt + min * each - depth - now }
    const granted = Math.min(want, free)
    this.fullAt = fullAt + granted * each
    return { granted, waitMs: 0 }
  }
}
