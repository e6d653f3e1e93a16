/**
 * Limits kept in memory by one who decides alone: rates by window and name, permits by name. As on Redis, rules of one name count
 * together, and the one that asks says what the limit is. Pure; the time comes in.
 *
 * A book that has taken over from another does not know what that one has granted: strict limits let nothing through until
 * that is over, a window and the longest validity, or one lease.
 *
 * Bounded: `limitsMax` limits in use; one more is answered with `undefined`.
 */
import type { PermitGrant, PermitRule, RateGrant, RateRequest, RateRule } from "./LimitStore.js"
import { SlidingWindow } from "./SlidingWindow.js"
import { TokenBucket } from "./TokenBucket.js"

export const limitsMax = 10_000
/** Of a window: longest validity of tokens of a strict rate. Who takes a limit over waits for as long. */
export const validShareMax = 0.25

interface Holders {
  /** By holder, when its lease ends. */
  readonly ends: Map<string, number>
  /** Until then there may be holders that it does not know. */
  readonly unsureUntil: number
}

export class LimitBook {
  private readonly rates = new Map<string, SlidingWindow | TokenBucket>()
  private readonly permits = new Map<string, Holders>()

  /** `takenOverAt`: until then another one decided; `undefined`: nobody did. */
  constructor(private readonly takenOverAt?: number) {}

  grant(rule: RateRule, request: RateRequest, now: number): RateGrant | undefined {
    const key = `${rule.exactness} ${rule.perMs} ${rule.name}`
    let rate = this.rates.get(key)
    if (rate === undefined) {
      if (!this.hasRoom(now)) return undefined
      rate = this.newRate(rule)
      this.rates.set(key, rate)
    }
    rate.limit = rule.limit
    if (rate instanceof TokenBucket) rate.burst = rule.burst
    return rate.grant(now, request)
  }

  private newRate({ burst, exactness, limit, perMs }: RateRule): SlidingWindow | TokenBucket {
    if (exactness === "relaxed") return new TokenBucket(limit, perMs, burst)
    const window = new SlidingWindow(limit, perMs)
    if (this.takenOverAt !== undefined) window.useUp(this.takenOverAt + perMs * validShareMax)
    return window
  }

  acquire(rule: PermitRule, holder: string, now: number): PermitGrant | undefined {
    const of = this.holdersOf(rule, now)
    if (of === undefined) return undefined
    const { ends, unsureUntil } = of
    if (!ends.has(holder)) {
      if (now < unsureUntil) return { isHeld: false, waitMs: unsureUntil - now }
      if (ends.size >= rule.limit) return { isHeld: false, waitMs: Math.min(...ends.values()) - now }
    }
    ends.set(holder, now + rule.leaseMs)
    return { isHeld: true, waitMs: 0 }
  }

  renew(rule: PermitRule, holder: string, now: number): boolean | undefined {
    const of = this.holdersOf(rule, now)
    if (of === undefined) return undefined
    const { ends, unsureUntil } = of
    // Of before, perhaps.
    const isBack = now < unsureUntil || (rule.exactness === "relaxed" && ends.size < rule.limit)
    if (!ends.has(holder) && !isBack) return false
    ends.set(holder, now + rule.leaseMs)
    return true
  }

  release({ name }: Pick<PermitRule, "name">, holder: string): void {
    this.permits.get(name)?.ends.delete(holder)
  }

  private holdersOf({ exactness, leaseMs, name }: PermitRule, now: number): Holders | undefined {
    let of = this.permits.get(name)
    if (of === undefined) {
      if (!this.hasRoom(now)) return undefined
      const isUnsure = exactness === "strict" && this.takenOverAt !== undefined
      of = { ends: new Map(), unsureUntil: isUnsure ? this.takenOverAt + leaseMs : -Infinity }
      this.permits.set(name, of)
    }
    for (const [holder, end] of of.ends) if (end <= now) of.ends.delete(holder)
    return of
  }

  /** What is not in use is forgotten to make room. */
  private hasRoom(now: number): boolean {
    if (this.rates.size + this.permits.size < limitsMax) return true
    for (const [key, rate] of this.rates) if (rate.isIdle(now)) this.rates.delete(key)
    for (const [name, { ends, unsureUntil }] of this.permits) {
      if (now >= unsureUntil && [...ends.values()].every((end) => end <= now)) this.permits.delete(name)
    }
    return this.rates.size + this.permits.size < limitsMax
  }
}
