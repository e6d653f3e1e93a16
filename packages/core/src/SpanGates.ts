/** Gates whose room is lent: by limits that span queues. They open when they are told, and not by time. */
import { Counted, type Gate, Held } from "./Gates.js"
import type { LimiterTerms } from "./LimiterTerms.js"
import { type Borrower, type Lent, none, type StartLimits, type Ticket } from "./StartLimits.js"

/** What a partition borrows with. */
export interface Lender {
  readonly limits: StartLimits
  readonly partition: string
  /** Something has been lent: `tick` has something to do, soon. */
  readonly wake: () => void
}

export const nobody: Lender = { limits: none, partition: "", wake: () => undefined }

/** Starts that a rate over many queues lets through. */
export class SpanRate extends Counted {
  readonly lent: Lent

  constructor(id: string, readonly terms: LimiterTerms, lend: (terms: LimiterTerms) => Lent) {
    super(id)
    this.lent = lend(terms)
  }

  take(): Ticket {
    return this.lent.take()
  }

  made(): void {
    return undefined
  }

  /** What was taken dies: it may have been used. */
  giveBack(): void {
    return undefined
  }

  override isLate(ticket: Ticket): boolean {
    return this.lent.isLate(ticket)
  }

  room(): number {
    return this.lent.room()
  }

  opensAt(): number {
    return Infinity
  }

  isIdle(): boolean {
    return this.lines === 0
  }
}

/** Attempts that a limit of concurrency over many queues lets run. */
export class SpanPermit extends Held {
  readonly lent: Lent
  running = 0

  constructor(id: string, readonly terms: LimiterTerms, lend: (terms: LimiterTerms) => Lent) {
    super(id)
    this.lent = lend(terms)
  }

  hold(isAdopted: boolean): void {
    this.running += 1
    if (isAdopted) this.lent.adopt()
    else this.lent.take()
  }

  free(): void {
    this.running -= 1
    this.lent.ended()
  }

  room(): number {
    return this.lent.room()
  }

  opensAt(): number {
    return Infinity
  }

  isIdle(): boolean {
    return this.lines === 0 && this.running === 0
  }
}

export type SpanGate = SpanRate | SpanPermit

export const isSpan = (gate: Gate): gate is SpanGate => gate instanceof SpanRate || gate instanceof SpanPermit

/** `filled` is called when the gate may have room. */
export const makeSpan = (
  id: string,
  terms: LimiterTerms,
  cost: number,
  { limits, partition, wake }: Lender,
  filled: (gate: SpanGate) => void
): SpanGate => {
  const borrower: Borrower = {
    partition,
    cost,
    filled: () => {
      filled(gate)
      wake()
    }
  }
  const lend = (each: LimiterTerms) => limits.lend(each, borrower)
  const gate: SpanGate = terms.kind === "rate" ? new SpanRate(id, terms, lend) : new SpanPermit(id, terms, lend)
  return gate
}
