/**
 * Those of one process who wait for permits of one limit. The first in line asks the store; one that is given back here
 * wakes it at once, one that is given back elsewhere is found within `pollMs`.
 *
 * A permit is a lease: its holder renews it, and stops by its own monotonic clock before the store may give it away.
 */
import { Deferred, Effect, FiberId } from "effect"
import { randomUUID } from "node:crypto"
import { type LimitNotGranted, PermitLost } from "./Errors.js"
import { LimitSource, type LimitSourceOptions } from "./LimitSource.js"
import type { LimitStore, PermitRule } from "./LimitStore.js"

const waitersMax = 10_000
/** Longest pause between two questions of the first in line. */
const pollMs = 200
const waitMsMin = 5
/** Renewals in a lease: two may be lost. */
const renewalsPerLease = 3
/** A renewal that failed is tried again after this share of a lease. */
const retryShare = 0.05
/** Share of a lease after which a holder that could not renew stops. */
const safeShare = 0.9

export interface PermitLineOptions extends LimitSourceOptions {
  readonly rule: PermitRule
}

interface Permit {
  readonly holder: string
  /** Where it was asked for: there it is renewed, and given back. `undefined`: nowhere yet. */
  store: LimitStore["Type"] | undefined
  /** Monotonic, ms. */
  safeUntil: number
}

export class PermitLine {
  /** In order; each is told when it is the first. */
  private readonly waiters = new Set<Deferred.Deferred<void>>()
  private released = Deferred.unsafeMake<void>(FiberId.none)
  private readonly source: LimitSource

  constructor(private readonly options: PermitLineOptions) {
    this.source = new LimitSource(options)
  }

  /** Runs `effect` while a permit is held; interrupts it when the permit is lost. */
  hold<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    waitMaxMs: number
  ): Effect.Effect<A, E | LimitNotGranted | PermitLost, R> {
    return Effect.suspend(() => {
      const permit: Permit = { holder: randomUUID(), store: undefined, safeUntil: 0 }
      return this.inLine(permit).pipe(
        Effect.timeoutFail({
          duration: waitMaxMs,
          onTimeout: () => this.source.refusal(this.source.obstacle, `within ${waitMaxMs} ms`)
        }),
        Effect.zipRight(Effect.raceFirst(effect, this.kept(permit))),
        Effect.ensuring(Effect.suspend(() => this.release(permit)))
      )
    })
  }

  private inLine(permit: Permit): Effect.Effect<void, LimitNotGranted> {
    return Effect.suspend(() => {
      if (this.waiters.size >= waitersMax) {
        return this.source.refusal("waiters", `${this.waiters.size} wait already, the most that may`)
      }
      const turn = Deferred.unsafeMake<void>(FiberId.none)
      this.waiters.add(turn)
      this.tellFirst()
      return Deferred.await(turn).pipe(
        Effect.zipRight(Effect.repeat(this.asked(permit), { until: (isHeld) => isHeld })),
        Effect.ensuring(Effect.sync(() => {
          this.waiters.delete(turn)
          this.tellFirst()
        })),
        Effect.asVoid
      )
    })
  }

  private tellFirst(): void {
    const { done, value } = this.waiters.values().next()
    if (done !== true) Deferred.unsafeDone(value, Effect.void)
  }

  /** Asks once; when nothing is free, waits until asking again makes sense. */
  private asked(permit: Permit): Effect.Effect<boolean> {
    const { rule } = this.options
    const ask = (store: LimitStore["Type"]) =>
      Effect.suspend(() => {
        permit.store = store
        permit.safeUntil = this.source.now() + rule.leaseMs * safeShare
        return store.acquire(rule, permit.holder)
      })
    return Effect.suspend(() => {
      const released = this.released
      return this.source.ask(ask, { isHeld: false, waitMs: pollMs }).pipe(
        Effect.tap(({ isHeld, waitMs }) =>
          isHeld
            ? Effect.void
            : Effect.timeoutOption(Deferred.await(released), Math.max(waitMsMin, Math.min(waitMs, pollMs)))
        ),
        Effect.map(({ isHeld }) => isHeld)
      )
    })
  }

  /** Renews until it cannot; never succeeds. */
  private kept(permit: Permit): Effect.Effect<never, PermitLost> {
    const { rule, whenGone } = this.options
    const lost = (reason: string) => new PermitLost({ limiter: rule.name, reason })
    const again = Effect.suspend(() => {
      const askedAt = this.source.now()
      return Effect.matchEffect(permit.store!.renew(rule, permit.holder), {
        onSuccess: (isHeld) => {
          if (!isHeld) return lost("the lease had ended when it was renewed")
          permit.safeUntil = askedAt + rule.leaseMs * safeShare
          return Effect.sleep(rule.leaseMs / renewalsPerLease)
        },
        onFailure: (error) =>
          whenGone === "open" || this.source.now() < permit.safeUntil
            ? Effect.sleep(rule.leaseMs * retryShare)
            : lost(`it could not be renewed: ${error.reason}`)
      })
    })
    return Effect.zipRight(Effect.sleep(rule.leaseMs / renewalsPerLease), Effect.forever(again))
  }

  /** One that cannot be given back ends with its lease. */
  private release({ holder, store }: Permit): Effect.Effect<void> {
    return store === undefined ? Effect.void : Effect.ignore(store.release(this.options.rule, holder)).pipe(
      Effect.zipRight(Effect.sync(() => {
        const { released } = this
        this.released = Deferred.unsafeMake<void>(FiberId.none)
        Deferred.unsafeDone(released, Effect.void)
      }))
    )
  }
}
