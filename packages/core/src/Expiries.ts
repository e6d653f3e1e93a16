/** Which final runs have been kept for as long as they shall be: those of one period end in the order in which they came. */
import { dayMs } from "./Retention.js"
import type { RunId } from "./RunId.js"

export class Expiries {
  /** By days: when each goes. */
  private readonly byDays = new Map<number, Map<RunId, number>>()
  /** Nothing is due before. */
  private next = Infinity

  /** `days` 0: never. */
  add(id: RunId, days: number, endedAt: number): void {
    if (days === 0) return
    let of = this.byDays.get(days)
    if (of === undefined) this.byDays.set(days, of = new Map())
    const at = endedAt + days * dayMs
    of.set(id, at)
    if (at < this.next) this.next = at
  }

  /** It is gone already. */
  delete(id: RunId): void {
    for (const of of this.byDays.values()) if (of.delete(id)) return
  }

  /** Those whose time is over; each is answered once. */
  take(now: number): ReadonlyArray<RunId> {
    if (now < this.next) return none
    const due: Array<RunId> = []
    this.next = Infinity
    for (const of of this.byDays.values()) {
      for (const [id, at] of of) {
        if (at > now) {
          this.next = Math.min(this.next, at)
          break
        }
        of.delete(id)
        due.push(id)
      }
    }
    return due
  }
}

const none: ReadonlyArray<RunId> = []
