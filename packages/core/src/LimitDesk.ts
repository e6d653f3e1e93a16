/** Where the owners of one process are lent room of limits that span queues: of rates all together, of permits each partition. */
import { Effect, FiberSet, type Scope } from "effect"
import { LimitSource } from "./LimitSource.js"
import type { LimitStore } from "./LimitStore.js"
import { type LimiterTerms, permitRuleOf, rateRuleOf } from "./LimiterTerms.js"
import * as MemoryLimitStore from "./MemoryLimitStore.js"
import { PermitDesk } from "./PermitDesk.js"
import { RateDesk } from "./RateDesk.js"
import type { Borrower, StartLimits } from "./StartLimits.js"

/** Rates that nobody uses any more are looked for when so many are known. */
const sweepAt = 1_024

export interface LimitDeskOptions {
  readonly store: LimitStore["Type"]
  /** Permits outlive their holder for at least this, so that its heir finds them. */
  readonly leaseMsMin: number
}

/** Lends until the scope closes. */
export const make = ({ leaseMsMin, store }: LimitDeskOptions): Effect.Effect<StartLimits, never, Scope.Scope> =>
  Effect.gen(function*() {
    const alone = yield* MemoryLimitStore.make
    const clock = yield* Effect.clock
    const now = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6
    const run = yield* FiberSet.makeRuntime<never, void, never>()
    const fork = (effect: Effect.Effect<void>) => void run(effect)
    const rates = new Map<string, RateDesk>()
    const sourceOf = (terms: LimiterTerms) =>
      new LimitSource({ rule: terms, whenGone: terms.whenGone ?? "closed", store, alone, clock })

    const rateDesk = (terms: Extract<LimiterTerms, { kind: "rate" }>): RateDesk => {
      const rule = rateRuleOf(terms)
      const key = `${terms.whenGone} ${JSON.stringify(rule)}`
      const known = rates.get(key)
      if (known !== undefined) return known
      if (rates.size >= sweepAt) { for (const [each, desk] of rates) if (desk.isIdle) rates.delete(each) }
      const desk = new RateDesk({ rule, source: sourceOf(terms), now, fork })
      rates.set(key, desk)
      return desk
    }

    const permits = new Map<string, PermitDesk>()
    /** One at a time under the names of a partition: what one still gives back must not be another's already. */
    const permitDesk = (terms: Extract<LimiterTerms, { kind: "permit" }>, borrower: Borrower): PermitDesk => {
      const rule = permitRuleOf({ ...terms, leaseMs: Math.max(terms.leaseMs, leaseMsMin) })
      const key = `${borrower.partition} ${terms.whenGone} ${JSON.stringify(rule)}`
      const known = permits.get(key)
      if (known !== undefined) {
        known.reopen(borrower)
        return known
      }
      const ended = () => {
        if (permits.get(key) === desk) permits.delete(key)
      }
      const isOpen = terms.whenGone === "open"
      const desk: PermitDesk = new PermitDesk(
        { rule, source: sourceOf(terms), shared: store, isOpen, now, fork, ended },
        borrower
      )
      permits.set(key, desk)
      return desk
    }

    return {
      lend: (terms, borrower) =>
        terms.kind === "rate" ? rateDesk(terms).lend(borrower) : permitDesk(terms, borrower).lent
    }
  })
