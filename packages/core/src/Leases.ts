/** Which attempts are out, at which workers, and until when they are those workers' own. */
import { type Entry, needOf } from "./Entry.js"

/**
 * A worker's attempts under this owner. Those with a lease below `doubtBelow` are in doubt until the worker announces
 * them, and lost at `expiresAt`; later ones were assigned over its present session.
 */
interface Held {
  readonly runs: Set<Entry>
  /** That its attempts take beyond one each. */
  moreSlots: number
  /** Of runs of backfills. */
  backfillSlots: number
  expiresAt: number
  doubtBelow: number
}

export class Leases {
  private readonly held = new Map<string, Held>()
  /** Attempts that are out. */
  count = 0
  /** Those of runs of backfills. */
  backfills = 0

  countOf(worker: string): number {
    return this.held.get(worker)?.runs.size ?? 0
  }

  /** Slots of the worker that its attempts take. */
  slotsOf(worker: string): number {
    const held = this.held.get(worker)
    return held === undefined ? 0 : held.runs.size + held.moreSlots
  }

  backfillSlotsOf(worker: string): number {
    return this.held.get(worker)?.backfillSlots ?? 0
  }

  /** A copy: what is done to them may end them. */
  of(worker: string): ReadonlyArray<Entry> {
    return [...this.held.get(worker)?.runs ?? []]
  }

  has(worker: string, entry: Entry): boolean {
    return this.held.get(worker)?.runs.has(entry) === true
  }

  /** Workers with an attempt that began before. */
  holdersSince(startedBefore: number): ReadonlyArray<string> {
    const found: Array<string> = []
    for (const [worker, { runs }] of this.held) {
      for (const { startedAt } of runs) {
        if (startedAt === null || startedAt >= startedBefore) continue
        found.push(worker)
        break
      }
    }
    return found
  }

  add(entry: Entry, worker: string): void {
    entry.worker = worker
    entry.place = "running"
    entry.seat = undefined
    let held = this.held.get(worker)
    if (held === undefined) {
      held = { runs: new Set(), moreSlots: 0, backfillSlots: 0, expiresAt: Infinity, doubtBelow: 0 }
      this.held.set(worker, held)
    }
    if (held.runs.has(entry)) return
    held.runs.add(entry)
    this.counted(held, entry, 1)
  }

  private counted(held: Held, entry: Entry, change: 1 | -1): void {
    this.count += change
    const need = needOf(entry)
    if (need === undefined) return
    held.moreSlots += change * (need.slots - 1)
    if (!need.isBackfill) return
    held.backfillSlots += change * need.slots
    this.backfills += change
  }

  delete(entry: Entry): void {
    const worker = entry.worker!
    const held = this.held.get(worker)
    if (held === undefined) return
    if (held.runs.delete(entry)) this.counted(held, entry, -1)
    if (held.runs.size === 0) this.held.delete(worker)
  }

  /** Unless the worker announces them by `expiresAt`, attempts with leases below `lease` are lost. */
  doubt(worker: string, expiresAt: number, lease: number): void {
    const held = this.held.get(worker)
    if (held === undefined) return
    held.expiresAt = Math.min(held.expiresAt, expiresAt)
    held.doubtBelow = lease
  }

  /** The worker has announced what it holds: answers what was in doubt, and is not any more; and all with leases below `lease`. */
  settle(worker: string, lease: number): ReadonlyArray<Entry> {
    const held = this.held.get(worker)
    if (held === undefined) return []
    held.expiresAt = Infinity
    const below = Math.max(lease, held.doubtBelow)
    return this.of(worker).filter((entry) => entry.lease < below)
  }

  /** Attempts whose workers have not come back in time, each once, and when that time was over. */
  expired(now: number): ReadonlyArray<{ readonly worker: string; readonly lostAt: number; readonly entry: Entry }> {
    const lost: Array<{ readonly worker: string; readonly lostAt: number; readonly entry: Entry }> = []
    for (const [worker, held] of this.held) {
      const lostAt = held.expiresAt
      if (lostAt > now) continue
      for (const entry of this.settle(worker, 0)) lost.push({ worker, lostAt, entry })
    }
    return lost
  }

  nextExpiry(): number {
    let at = Infinity
    for (const { expiresAt } of this.held.values()) at = Math.min(at, expiresAt)
    return at
  }
}
