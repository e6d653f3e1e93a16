/**
 * Starts that must be durable before their workers hear of them, written as one row for all of a commit: most attempts end within
 * milliseconds, and a row of their own that says they have begun would cost as much as their end. A take-over brings what such a row
 * says into those of its runs, in the same statement that raises the epoch.
 *
 * A roll keeps its slot, which is its row, until each of its runs has had a later change committed; then the next roll overwrites it.
 * Attempts that take longer are marked in their own rows, so that whoever reads those sees them, and slots stay few.
 */
import type { Entry } from "./Entry.js"
import type { RunStart, StartRoll } from "./Journal.js"

/** Attempts that end sooner are never marked in their own rows. About what two commits take. */
export const markAfterMs = 10

export class Roll {
  private readonly entries: Array<Entry> = []
  private readonly starts: Array<RunStart> = []
  private slot: number | undefined
  /** Entries without a later change. */
  private open = 0
  isCommitted = false

  constructor(private readonly rolls: Rolls) {}

  add(entry: Entry): void {
    this.slot ??= this.rolls.takeSlot()
    this.open += 1
    this.entries.push(entry)
    this.starts.push({
      id: entry.id,
      attempt: entry.attempt,
      lease: entry.lease,
      worker: entry.worker!,
      startedAt: entry.startedAt!
    })
    entry.roll = this
  }

  leave(entry: Entry): void {
    entry.roll = undefined
    this.open -= 1
    if (this.open === 0) this.rolls.freeSlot(this.slot!)
  }

  /** Those of whose rows nothing has been written, or is about to be. */
  get unmarked(): ReadonlyArray<Entry> {
    return this.entries.filter((entry) =>
      entry.roll === this && entry.unwritten === undefined && entry.sent === undefined
    )
  }

  /** `undefined`: nothing has started. */
  get written(): StartRoll | undefined {
    return this.slot === undefined ? undefined : { slot: this.slot, starts: this.starts }
  }
}

export class Rolls {
  private readonly free: Array<number> = []
  private slots = 0
  /** Committed since the last look. */
  private fresh: Array<Roll> = []
  /** Those whose runs are not marked, the first to be due first. */
  private unmarked: Array<{ readonly roll: Roll; readonly markAt: number }> = []

  /** For the starts of one commit. */
  begin(): Roll {
    return new Roll(this)
  }

  takeSlot(): number {
    return this.free.pop() ?? this.slots++
  }

  freeSlot(slot: number): void {
    this.free.push(slot)
  }

  /** What was sent of the entry is durable: its start, or a change after that. */
  committed(entry: Entry, roll: Roll, isStart: boolean): void {
    if (!isStart) return roll.leave(entry)
    if (roll.isCommitted) return
    roll.isCommitted = true
    this.fresh.push(roll)
  }

  /** Attempts that have been out for so long that their own rows shall say so. */
  due(now: number): ReadonlyArray<Entry> {
    const due: Array<Entry> = []
    while (this.nextTick() <= now) {
      for (const entry of this.unmarked.shift()!.roll.unmarked) due.push(entry)
    }
    for (const roll of this.fresh) this.unmarked.push({ roll, markAt: now + markAfterMs })
    this.fresh = []
    return due
  }

  nextTick(): number {
    return this.unmarked[0]?.markAt ?? Infinity
  }
}
