/**
 * What owners of queues are lent of limits that span queues. The store of a limit is asked for room in chunks, ahead of need, so
 * that a start costs a subtraction: `Lent` is asked in plain calls, on the way of each run.
 */
import type { LimitNotGranted } from "./Errors.js"
import type { LimiterTerms } from "./LimiterTerms.js"

/** A start that has taken room. For rates, until when it may be made, by the clock of the process; for permits, 0. */
export type Ticket = number

/** What one gate of one partition has of a limit. Counted in starts. */
export interface Lent {
  /** Starts for which there is room now. */
  readonly room: () => number
  /** Only while there is room. */
  readonly take: () => Ticket
  /** A start that has not been made by then must not be made any more. */
  readonly isLate: (ticket: Ticket) => boolean
  /** Runs wait for room. The gate is told (`filled`) once there may be some. */
  readonly want: () => void
  /** Permits: an attempt is over. Rates count starts, and give nothing back. */
  readonly ended: () => void
  /** Permits: an attempt of an earlier owner goes on, and counts. */
  readonly adopt: () => void
  /** Permits that attempts hold, and that may be another's by now: so many must stop. */
  readonly lost: () => number
  /** Why nothing is lent now. */
  readonly obstacle: () => LimitNotGranted["reason"]
  /** No run needs it any more: what is not used goes back, or dies. */
  readonly close: () => void
  /** This owner has ended. What it was lent is its heir's, and ends by itself if there is none. */
  readonly abandon: () => void
}

export interface Borrower {
  /** Of the partition, the same for each of its owners: what the one before was lent is its heir's. */
  readonly partition: string
  /** Tokens of one start. 1 for permits. */
  readonly cost: number
  /** There may be room; or permits are lost. Called outside of the calls above. */
  readonly filled: () => void
}

export interface StartLimits {
  readonly lend: (terms: LimiterTerms, borrower: Borrower) => Lent
}

/** Where there is no store: nothing is ever lent. */
export const none: StartLimits = {
  lend: () => ({
    room: () => 0,
    take: () => 0,
    isLate: () => false,
    want: () => undefined,
    ended: () => undefined,
    adopt: () => undefined,
    lost: () => 0,
    obstacle: () => "unavailable",
    close: () => undefined,
    abandon: () => undefined
  })
}
