/**
 * Those of one process who wait for tokens of one limit. One call to the store brings tokens for many: for all that wait,
 * and for those to come, as many as were used of the last.
 *
 * Tokens die: they are used within their validity, counted from before they were asked for, or never. That is how the
 * store knows in which windows they may have been used. What came too late is given up, and the next are asked for with more time.
 */
import { Effect, Exit } from "effect"
import type { LimitNotGranted } from "./Errors.js"
import { validShareMax } from "./LimitBook.js"
import { LimitSource, type LimitSourceOptions } from "./LimitSource.js"
import type { RateGrant, RateRule } from "./LimitStore.js"

/** Those that wait in one process for one limit. */
const waitersMaxDefault = 10_000
/** Share of a window for which tokens are valid, at least and at most; the first costs the use of as much of the limit. */
const validShare = { min: 0.02, max: validShareMax }
/** Of a relaxed limit: larger chunks, and the bound grows by as much. */
const relaxedValidShare = 0.1
const validMsMin = 2
/** Of the limit, with one call, so that processes take turns. */
const chunkShare = 0.1
/** An answer that took this many times less than the validity shows that less would do. */
const roomy = 8
/** With each of those. Slowly: tokens that come too late are lost for a whole window. */
const shrink = 0.98
/** Pause while the store is gone. */
const goneMs = 200
/** A store that says "now" and grants nothing is not asked in a loop. */
const waitMsMin = 1

export interface RateLineOptions extends LimitSourceOptions {
  readonly rule: RateRule
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Default 10,000. */
  readonly waitersMax?: number
}

interface Answer extends RateGrant {
  /** Before it was asked for. Monotonic, ms. */
  readonly askedAt: number
}

interface Waiter {
  readonly cost: number
  readonly resume: (effect: Effect.Effect<number>) => void
}

export class RateLine {
  private readonly waiters = new Set<Waiter>()
  private tokens = 0
  /** Monotonic, ms. */
  private validUntil = 0
  private validMs: number
  private isAsking = false
  /** Used of the tokens there were last. */
  private used = 0
  private readonly source: LimitSource

  constructor(private readonly options: RateLineOptions) {
    this.source = new LimitSource(options)
    this.validMs = this.validBounds.min
  }

  /** Completes when `cost` tokens may be used, at once. */
  take(cost: number, waitMaxMs: number): Effect.Effect<void, LimitNotGranted> {
    return this.taken(cost).pipe(
      Effect.timeoutFail({
        duration: waitMaxMs,
        onTimeout: () => this.source.refusal(this.source.obstacle, `within ${waitMaxMs} ms`)
      })
    )
  }

  /** Without waiting for others; asks the store at most once. */
  tryTake(cost: number): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      if (this.waiters.size > 0) return Effect.succeed(false)
      if (this.spend(cost)) return Effect.succeed(true)
      const validMs = this.validMs
      return Effect.map(
        this.ask(cost, cost),
        ({ askedAt, granted }) => granted >= cost && this.source.now() <= askedAt + validMs
      )
    })
  }

  private taken(cost: number): Effect.Effect<void, LimitNotGranted> {
    return Effect.suspend(() => {
      if (this.waiters.size === 0 && this.spend(cost)) return Effect.void
      if (this.waiters.size >= (this.options.waitersMax ?? waitersMaxDefault)) {
        return this.source.refusal("waiters", `${this.waiters.size} wait already, the most that may`)
      }
      return Effect.async<number>((resume) => {
        const waiter = { cost, resume }
        this.waiters.add(waiter)
        this.wake()
        return Effect.sync(() => void this.waiters.delete(waiter))
      }).pipe(
        // The fiber may go on later than it was told to.
        Effect.flatMap((validUntil) => this.source.now() <= validUntil ? Effect.void : this.taken(cost))
      )
    })
  }

  private wake(): void {
    if (this.isAsking) return
    this.isAsking = true
    this.options.fork(
      this.round.pipe(
        Effect.repeat({ while: () => this.waiters.size > 0 }),
        Effect.onExit((exit) =>
          Effect.sync(() => {
            this.isAsking = false
            // Who came between the last look and now. Not when the process stops.
            if (Exit.isSuccess(exit) && this.waiters.size > 0) this.wake()
          })
        ),
        Effect.asVoid
      )
    )
  }

  /** Asks once, hands out what came, and waits until asking again makes sense. */
  private readonly round: Effect.Effect<void> = Effect.suspend(() => {
    this.handOut()
    const first = this.first()
    if (first === undefined) return Effect.void
    const validMs = this.validMs
    return Effect.flatMap(this.ask(first.cost, this.wanted(first.cost)), ({ askedAt, granted, waitMs }) => {
      if (granted === 0) return Effect.sleep(Math.max(waitMs, waitMsMin))
      this.learn(this.source.now() - askedAt)
      this.tokens = granted
      this.used = 0
      this.validUntil = askedAt + validMs
      this.handOut()
      return Effect.void
    })
  })

  private ask(min: number, want: number): Effect.Effect<Answer> {
    const { rule } = this.options
    const request = { min, want, validMs: this.validMs }
    return this.source.ask((store) =>
      Effect.suspend(() => {
        const askedAt = this.source.now()
        return Effect.map(store.grant(rule, request), (grant): Answer => ({ ...grant, askedAt }))
      }), { granted: 0, waitMs: goneMs, askedAt: 0 })
  }

  private first(): Waiter | undefined {
    const { done, value } = this.waiters.values().next()
    return done === true ? undefined : value
  }

  private wanted(min: number): number {
    const { limit, perMs } = this.options.rule
    let waiting = 0
    for (const { cost } of this.waiters) {
      waiting += cost
      if (waiting >= this.chunkMax) break
    }
    const ahead = Math.min(this.used, Math.ceil(limit * this.validMs / perMs))
    return Math.max(min, Math.min(waiting + ahead, this.chunkMax))
  }

  private get chunkMax(): number {
    const { burst, exactness, limit } = this.options.rule
    return exactness === "strict" ? Math.ceil(limit * chunkShare) : burst
  }

  private handOut(): void {
    for (const waiter of this.waiters) {
      if (!this.spend(waiter.cost)) return
      this.waiters.delete(waiter)
      waiter.resume(Effect.succeed(this.validUntil))
    }
  }

  private spend(cost: number): boolean {
    if (this.tokens < cost || this.source.now() > this.validUntil) return false
    this.tokens -= cost
    this.used += cost
    return true
  }

  private get validBounds(): { readonly min: number; readonly max: number } {
    const { exactness, perMs } = this.options.rule
    if (exactness === "relaxed") return { min: perMs * relaxedValidShare, max: perMs * relaxedValidShare }
    return { min: Math.max(validMsMin, perMs * validShare.min), max: perMs * validShare.max }
  }

  private learn(tookMs: number): void {
    const { max, min } = this.validBounds
    if (tookMs * 2 > this.validMs) this.validMs = Math.min(max, Math.max(tookMs * 2, this.validMs * 2))
    else if (tookMs * roomy < this.validMs) this.validMs = Math.max(min, this.validMs * shrink)
  }
}
