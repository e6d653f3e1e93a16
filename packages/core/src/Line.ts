/** Lines of ready runs, and the turns of those that are up: by kind (`Need`), and within it by tenant. */
import type { Entry } from "./Entry.js"
import type { Gate } from "./Gates.js"
import { Heap } from "./Heap.js"
import type { LimiterTerms } from "./LimiterTerms.js"
import type { Need } from "./Need.js"
import { isOrdered } from "./RunKeys.js"
import type { Window } from "./Window.js"

export const noGates: ReadonlyArray<Gate> = []

/** Who takes turns with others. */
export class Tenant {
  weight = 1
  /** Grows by 1 / weight with each start. */
  pass = 0
  readonly turns = new Map<string, Turn>()
  /** Of all its lines, up or not. */
  lines = 0
  constructor(readonly key: string) {}
}

/** The lines of one tenant and kind that are up. */
export class Turn {
  at = -1
  readonly lines = new Heap<Line>(isAhead)
  constructor(readonly tenant: Tenant) {}
}

/** What is up of one kind. */
export class KindTurns {
  readonly turns = new Heap<Turn>(isBefore)
  /** No worker had a place for it when it was last looked for. */
  isBlocked = false
  /** As others of its backfills have all that they may have: it wants for no slot. */
  isHeld = false
  constructor(readonly task: string, readonly need: Need | undefined) {}
}

const isAhead = (a: Line, b: Line): boolean => a.rank !== b.rank ? a.rank < b.rank : a.seq < b.seq

export const isBefore = (a: Turn, b: Turn): boolean =>
  a.tenant.pass !== b.tenant.pass ? a.tenant.pass < b.tenant.pass : isAhead(a.lines.peek()!, b.lines.peek()!)

export class Line {
  /** Place in the heap it is in. */
  at = -1
  readonly isOrdered: boolean
  /** Of the first run, as of when it was placed. */
  kind = ""
  task = ""
  need: Need | undefined
  rank = 0
  seq = 0
  tenant: Tenant | undefined
  gates: ReadonlyArray<Gate> = noGates
  /** For which these gates were found. */
  keysText: string | null | undefined
  limiters: ReadonlyArray<LimiterTerms> | undefined
  /** Its starts count here: at gates of the partition, or by permits. */
  isGated = false
  /** Its runs must begin when they are given to a worker, so they wait behind no slot. */
  isPrompt = false
  turn: Turn | undefined
  parkedAt: Gate | undefined
  /** Pass of the tenant at that moment. */
  parkedPass = 0
  /** When the first run's time comes, where it waits for that. */
  wakesAt = Infinity
  isAsleep = false
  /** Of an ordered line: the run that must end before the next may start. */
  busy: Entry | undefined
  /** Of an ordered line: runs that are being changed, out of line until that is durable. */
  away: Set<Entry> | undefined

  constructor(readonly name: string, readonly isKeyed: boolean, readonly window: Window<Entry>) {
    this.isOrdered = isOrdered(name)
  }
}
