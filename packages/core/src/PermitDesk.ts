/**
 * What one partition is lent of one limit of concurrency. A permit is kept for the next run as long as there is one, so an attempt
 * costs no call; it is renewed three times in its lease, and given back when nothing needs it.
 *
 * Permits are named by partition and number, lowest first: an owner that takes the partition over renews those of the attempts it
 * finds running by asking for as many. So they count without a break, and nothing has to be cleaned up after a crash.
 *
 * Of two queues that could both use all permits, each gives one back at every renewal, and asks again only when others have
 * had the time to.
 */
import { Deferred, Effect, FiberId } from "effect"
import type { LimitSource } from "./LimitSource.js"
import type { LimitStore, PermitRule } from "./LimitStore.js"
import type { Borrower, Lent } from "./StartLimits.js"

/** Between two questions while there is none. */
const pollMs = 200
/** Between two looks of a desk at what it has. */
const waitMsMin = 5
const waitMsMax = 200
const renewalsPerLease = 3
/** A renewal that failed is tried again after this share of a lease. */
const retryShare = 0.05
/** Share of a lease after which a permit that was not renewed counts as another's. */
const safeShare = 0.9
/** What nothing has needed for so long goes back. */
const idleMs = 100
/** After giving one up for others it is not asked for another. */
const giveWayMs = 2 * pollMs
/** Asked for in one go: the way to the store costs more than what is asked there. */
const aheadMax = 64

export interface PermitDeskOptions {
  readonly rule: PermitRule
  readonly source: LimitSource
  readonly shared: LimitStore["Type"]
  /** Go on when the lease cannot be renewed. */
  readonly isOpen: boolean
  /** Monotonic, ms. */
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => void
  /** It has come to its end: another may begin under the same names. */
  readonly ended: () => void
}

interface Permit {
  /** `undefined`: that of an earlier owner. */
  readonly store: LimitStore["Type"] | undefined
  readonly until: number
  renewAt: number
}

export class PermitDesk {
  private readonly permits = new Map<number, Permit>()
  private counted = 0
  private countedUntil = -Infinity
  private taken = 0
  private isWanted = false
  /** How many to ask for beyond what is taken. */
  private ahead = 1
  private askAt = 0
  /** When one was last used, or got. */
  private busyAt = 0
  private giveUpAt: number
  /** To be given back for others to have, as soon as it is free. */
  private owed = 0
  private isClosed = false
  private isAbandoned = false
  private changed = Deferred.unsafeMake<void>(FiberId.none)

  constructor(private readonly options: PermitDeskOptions, private borrower: Borrower) {
    this.giveUpAt = options.now() + options.rule.leaseMs / renewalsPerLease
    options.fork(this.run)
  }

  /** Of a gate that was closed, or is closing. */
  reopen(borrower: Borrower): void {
    this.borrower = borrower
    this.isClosed = false
  }

  readonly lent: Lent = {
    room: () => this.live() - this.taken - this.owed,
    take: () => {
      this.taken += 1
      this.busyAt = this.options.now()
      return 0
    },
    isLate: () => false,
    want: () => {
      if (this.isWanted) return
      this.isWanted = true
      this.wake()
    },
    ended: () => {
      this.taken -= 1
      if (this.owed > 0) this.wake()
    },
    adopt: () => {
      const now = this.options.now()
      this.taken += 1
      if (this.live() >= this.taken) return
      // Renewed before anything else is done; until then it counts as the one before has left it.
      this.set(this.lowestFree(1)[0]!, { store: undefined, until: now + this.options.rule.leaseMs, renewAt: now })
      this.wake()
    },
    lost: () => this.options.isOpen ? 0 : Math.max(0, this.taken - this.live()),
    obstacle: () => this.options.source.obstacle,
    close: () => {
      this.isClosed = true
      this.wake()
    },
    abandon: () => {
      this.isClosed = true
      this.isAbandoned = true
      this.options.ended()
      this.wake()
    }
  }

  /** Permits that are still this one's. Counted again when one has changed, or ends. */
  private live(): number {
    if (this.options.isOpen) return this.permits.size
    const now = this.options.now()
    if (now < this.countedUntil) return this.counted
    this.counted = 0
    this.countedUntil = Infinity
    for (const { until } of this.permits.values()) {
      if (until <= now) continue
      this.counted += 1
      this.countedUntil = Math.min(this.countedUntil, until)
    }
    return this.counted
  }

  private set(number: number, permit: Permit | undefined): void {
    if (permit === undefined) this.permits.delete(number)
    else this.permits.set(number, permit)
    this.countedUntil = -Infinity
  }

  private wake(): void {
    const { changed } = this
    this.changed = Deferred.unsafeMake<void>(FiberId.none)
    Deferred.unsafeDone(changed, Effect.void)
  }

  /** Until it is closed, and has given everything back. */
  private readonly run: Effect.Effect<void> = Effect.gen(this, function*() {
    // Not within the call that has asked.
    yield* Effect.yieldNow()
    for (;;) {
      const { changed } = this
      if (this.isAbandoned) return
      if (this.isClosed && this.permits.size === 0) return this.options.ended()
      if (this.isClosed) {
        yield* this.releaseTop
        continue
      }
      yield* this.renewDue
      yield* this.acquireMissing
      yield* this.releaseIdle
      if (this.lent.lost() > 0) this.borrower.filled()
      yield* Effect.timeoutOption(Deferred.await(changed), this.waitMs())
    }
  })

  private readonly renewDue: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.options.now()
    const due = [...this.permits].filter(([, { renewAt }]) => renewAt <= now)
    return Effect.forEach(due, ([number, permit]) => this.renew(number, permit), {
      concurrency: aheadMax,
      discard: true
    })
  })

  private renew(number: number, permit: Permit): Effect.Effect<void> {
    const { now, rule } = this.options
    return Effect.suspend(() => {
      const askedAt = now()
      return Effect.match((permit.store ?? this.options.shared).renew(rule, this.holder(number)), {
        onSuccess: (isHeld) => {
          // Else another may hold it: it is asked for anew, and if there is none, so many attempts must stop.
          this.set(number, isHeld ? this.held(askedAt, permit.store) : undefined)
        },
        onFailure: () => {
          permit.renewAt = now() + rule.leaseMs * retryShare
        }
      })
    })
  }

  /** A lease counts from before it was asked for. */
  private held(askedAt: number, store: Permit["store"]): Permit {
    const { leaseMs } = this.options.rule
    return { store, until: askedAt + leaseMs * safeShare, renewAt: askedAt + leaseMs / renewalsPerLease }
  }

  private readonly acquireMissing: Effect.Effect<void> = Effect.gen(this, function*() {
    for (;;) {
      const now = this.options.now()
      const needed = Math.min(this.taken + (this.isWanted ? this.ahead : 0), this.mostUseful())
      const missing = Math.min(needed - this.permits.size, aheadMax)
      if (this.isClosed || now < this.askAt || missing <= 0) break
      // Keepers decide in the order in which they are asked: those that are held are the lowest, for which an heir asks.
      const answers = yield* Effect.forEach(this.lowestFree(missing), (number) => this.acquire(number), {
        concurrency: aheadMax
      })
      const refusal = answers.find(({ isHeld }) => !isHeld)
      if (answers[0]!.isHeld) this.busyAt = this.options.now()
      if (refusal === undefined) {
        // There are enough for all.
        this.owed = 0
        continue
      }
      this.askAt = now + Math.max(waitMsMin, Math.min(refusal.waitMs, pollMs))
      this.ahead = 1
      break
    }
    if (!this.isWanted || this.lent.room() <= 0) return
    this.isWanted = false
    this.ahead = Math.min(2 * this.ahead, aheadMax)
    this.borrower.filled()
  })

  /** Attempts of before may be more than a limit that was lowered. */
  private mostUseful(): number {
    return Math.max(this.options.rule.limit, this.taken)
  }

  private lowestFree(count: number): ReadonlyArray<number> {
    const free: Array<number> = []
    for (let number = 0; free.length < count; number++) if (!this.permits.has(number)) free.push(number)
    return free
  }

  private acquire(number: number): Effect.Effect<{ readonly isHeld: boolean; readonly waitMs: number }> {
    const { now, rule, source } = this.options
    return source.ask((store) =>
      Effect.suspend(() => {
        const askedAt = now()
        return Effect.map(store.acquire(rule, this.holder(number)), (answer) => {
          if (answer.isHeld) this.set(number, this.held(askedAt, store))
          return answer
        })
      }), { isHeld: false, waitMs: pollMs })
  }

  private readonly releaseIdle: Effect.Effect<void> = Effect.gen(this, function*() {
    const now = this.options.now()
    if (now >= this.giveUpAt) {
      this.giveUpAt = now + this.options.rule.leaseMs / renewalsPerLease
      this.owed = this.permits.size > 0 ? 1 : 0
    }
    if (this.owed > 0 && this.permits.size > this.taken) {
      this.owed = 0
      this.askAt = now + giveWayMs
      return yield* this.releaseTop
    }
    if (this.isWanted || this.isWorking(now)) return
    this.ahead = 1
    while (this.permits.size > this.taken && !this.isWanted) yield* this.releaseTop
  })

  private isWorking(now: number): boolean {
    return now - this.busyAt < idleMs
  }

  private readonly releaseTop: Effect.Effect<void> = Effect.suspend(() => {
    const number = Math.max(...this.permits.keys())
    const permit = this.permits.get(number)!
    this.set(number, undefined)
    return Effect.ignore((permit.store ?? this.options.shared).release(this.options.rule, this.holder(number)))
  })

  private waitMs(): number {
    const now = this.options.now()
    let at = now + waitMsMax
    for (const { renewAt, until } of this.permits.values()) at = Math.min(at, renewAt, until > now ? until : at)
    const needed = Math.min(this.taken + (this.isWanted ? 1 : 0), this.mostUseful())
    if (this.permits.size < needed) at = Math.min(at, this.askAt)
    if (this.permits.size > this.taken) at = Math.min(at, this.busyAt + idleMs, this.giveUpAt)
    return Math.max(waitMsMin, at - now)
  }

  private holder(number: number): string {
    const { leaseMs, limit } = this.options.rule
    return `${this.borrower.partition} ${limit}/${leaseMs} ${number}`
  }
}
