/**
 * What the owners of one process are lent of one rate, all together: tokens come in chunks, as many as were used lately, and the next
 * are asked for before those at hand are used up or die. Tokens of a strict rate are used within their validity or never; what is
 * left of them then is wasted, and no window can hold more than the limit, whoever dies with tokens in hand.
 *
 * Plain calls on the way of a start; only `ask` is an effect.
 */
import { Effect, Exit } from "effect"
import { validShareMax } from "./LimitBook.js"
import type { LimitSource } from "./LimitSource.js"
import type { LimitStore, RateGrant, RateRule } from "./LimitStore.js"
import type { Borrower, Lent, Ticket } from "./StartLimits.js"

/** Share of a window for which tokens are valid: at first and at least, and at most. */
const validShare = { min: 0.02, max: validShareMax }
const relaxedValidShare = 0.1
const validMsMin = 2
/** Of a strict limit in one chunk, so that processes take turns. */
const chunkShare = 0.1
/** Share of the validity in which strict tokens are used. The rest is the way to the worker. */
const usableShare = 0.75
/** A chunk is for the use of one validity, and this much more. */
const ample = 1.25
/** Smaller chunks are asked for when a run waits, not ahead: what nobody uses would be missed. */
const aheadMin = 8
/** The next chunk is asked for so many round trips before the present one dies. */
const leadTrips = 3
/** An answer that took this many times less than the validity shows that less would do. */
const roomy = 8
const shrink = 0.98
/** Pause while the store is gone. */
const goneMs = 200
/** A store that says "now" and grants nothing is not asked in a loop. */
const waitMsMin = 1

export interface RateDeskOptions {
  readonly rule: RateRule
  readonly source: LimitSource
  /** Of validities. Monotonic, ms. */
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => void
}

interface Answer extends RateGrant {
  readonly askedAt: number
}

interface Waiting extends Borrower {
  readonly isOpen: () => boolean
}

export class RateDesk {
  /** Gates at which runs wait, those that have waited longest first. */
  private readonly waiting = new Set<Waiting>()
  private lentTo = 0
  private tokens = 0
  private validUntil = -Infinity
  /** The chunk after this one, where it is there already. */
  private spare = 0
  private spareUntil = -Infinity
  private isAsking = false
  /** Tokens used since the last chunk came, and when that was. */
  private used = 0
  private since = 0
  private lastGranted = 1
  private lastCost = 1
  private tripMs = 1
  private validMs: number

  constructor(private readonly options: RateDeskOptions) {
    this.validMs = this.validBounds.min
  }

  /** Whether nobody is lent anything. */
  get isIdle(): boolean {
    return this.lentTo === 0
  }

  lend(borrower: Borrower): Lent {
    const { burst } = this.options.rule
    // A limit that was lowered below the cost lets one start at a time, not none.
    const cost = Math.min(borrower.cost, burst)
    let isOpen = true
    const waiting: Waiting = { ...borrower, cost, isOpen: () => isOpen }
    this.lentTo += 1
    const close = () => {
      if (!isOpen) return
      isOpen = false
      this.lentTo -= 1
      this.waiting.delete(waiting)
    }
    return {
      room: () => this.room(cost),
      take: () => this.take(cost),
      isLate: (ticket) => this.options.now() > ticket,
      want: () => {
        this.waiting.add(waiting)
        this.ask()
      },
      ended: () => undefined,
      adopt: () => undefined,
      lost: () => 0,
      obstacle: () => this.options.source.obstacle,
      close,
      abandon: close
    }
  }

  private room(cost: number): number {
    const now = this.options.now()
    if (now > this.validUntil) this.turnOver(now)
    if (this.isAhead && this.tokens > 0 && now > this.validUntil - leadTrips * this.tripMs) this.ask()
    return Math.floor(this.tokens / cost) + Math.floor(this.spare / cost)
  }

  private take(cost: number): Ticket {
    if (this.tokens < cost) this.turnOver(Infinity)
    this.tokens -= cost
    this.used += cost
    this.lastCost = cost
    const { validUntil } = this
    if (this.isAhead && this.tokens < this.lastGranted / 2) this.ask()
    return validUntil
  }

  /** Whether the next chunk is asked for before anybody waits for it. */
  private get isAhead(): boolean {
    return this.spare === 0 && this.used > 0 && this.lastGranted >= aheadMin
  }

  /** What is left of the chunk at hand is given up. */
  private turnOver(now: number): void {
    const isLive = now === Infinity || now <= this.spareUntil
    this.tokens = isLive ? this.spare : 0
    this.validUntil = isLive ? this.spareUntil : -Infinity
    this.spare = 0
  }

  private ask(): void {
    if (this.isAsking) return
    this.isAsking = true
    this.options.fork(
      // Not within the call that has asked.
      Effect.yieldNow().pipe(
        Effect.zipRight(Effect.repeat(this.round, { while: () => this.waiting.size > 0 })),
        Effect.onExit((exit) =>
          Effect.sync(() => {
            this.isAsking = false
            if (Exit.isSuccess(exit) && this.waiting.size > 0) this.ask()
          })
        ),
        Effect.asVoid
      )
    )
  }

  /** Asks once, tells who waits, and waits until asking again makes sense. */
  private readonly round: Effect.Effect<void> = Effect.suspend(() => {
    const { validMs } = this
    const first = this.waiting.values().next().value
    const min = first?.cost ?? this.lastCost
    return Effect.flatMap(this.request(min, this.wanted(min)), (answer) => {
      if (answer.granted === 0) {
        return this.waiting.size === 0 ? Effect.void : Effect.sleep(Math.max(answer.waitMs, waitMsMin))
      }
      const usableMs = this.options.rule.exactness === "strict" ? validMs * usableShare : validMs
      this.fill(answer, answer.askedAt + usableMs)
      return Effect.void
    })
  })

  private request(min: number, want: number): Effect.Effect<Answer> {
    const { now, rule, source } = this.options
    const request = { min, want, validMs: this.validMs }
    return source.ask((store: LimitStore["Type"]) =>
      Effect.suspend(() => {
        const askedAt = now()
        return Effect.map(store.grant(rule, request), (grant): Answer => ({ ...grant, askedAt }))
      }), { granted: 0, waitMs: goneMs, askedAt: 0 })
  }

  private fill({ askedAt, granted }: Answer, until: number): void {
    const now = this.options.now()
    this.learn(now - askedAt)
    this.lastGranted = granted
    this.used = 0
    this.since = now
    if (this.tokens > 0 && now <= this.validUntil) {
      this.spare = granted
      this.spareUntil = until
    } else {
      this.tokens = granted
      this.validUntil = until
    }
    // Told in turn: whoever wants more comes after those that have not been asked.
    const told = [...this.waiting]
    this.waiting.clear()
    for (const each of told) if (each.isOpen()) each.filled()
  }

  private wanted(min: number): number {
    let waiting = 0
    for (const { cost } of this.waiting) {
      waiting += cost
      if (waiting >= this.chunkMax) break
    }
    const perValidity = this.used * this.validMs / Math.max(1, this.options.now() - this.since)
    const ahead = Math.min(Math.ceil(perValidity * ample), 2 * this.lastGranted)
    return Math.max(min, Math.min(Math.max(waiting, ahead), this.chunkMax))
  }

  private get chunkMax(): number {
    const { burst, exactness, limit } = this.options.rule
    return exactness === "strict" ? Math.ceil(limit * chunkShare) : burst
  }

  private get validBounds(): { readonly min: number; readonly max: number } {
    const { exactness, perMs } = this.options.rule
    if (exactness === "relaxed") return { min: perMs * relaxedValidShare, max: perMs * relaxedValidShare }
    return { min: Math.max(validMsMin, perMs * validShare.min), max: perMs * validShare.max }
  }

  private learn(tookMs: number): void {
    const { max, min } = this.validBounds
    this.tripMs += (tookMs - this.tripMs) / 4
    if (tookMs * 2 > this.validMs) this.validMs = Math.min(max, Math.max(tookMs * 2, this.validMs * 2))
    else if (tookMs * roomy < this.validMs) this.validMs = Math.max(min, this.validMs * shrink)
  }
}
