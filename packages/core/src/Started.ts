/** What a start needs to know of the gates it has passed. */
import type { Counted, Held } from "./Gates.js"

/** Room at a rate that a start has taken. */
export interface Taken {
  readonly rate: Counted
  readonly cost: number
}

export interface Started {
  readonly permits: ReadonlyArray<Held>
  readonly rates: ReadonlyArray<Taken>
  /** The mark that it has started must be durable before a worker hears of it: only so are limits exact after a crash. */
  readonly isGated: boolean
}

export const plainStart: Started = { permits: [], rates: [], isGated: false }
export const gatedStart: Started = { ...plainStart, isGated: true }
