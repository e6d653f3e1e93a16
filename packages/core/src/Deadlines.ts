/** When a run, or its attempt, has had its time, as far as its owner is concerned. At most one instant per run: the next. */
import type { Entry } from "./Entry.js"
import { type Seat, Window } from "./Window.js"

export interface Deadline {
  readonly entry: Entry
  /** `timeout`: of the attempt that is out; `cancel`: it was asked to end; `expire`: of a run in line. */
  readonly kind: "timeout" | "cancel" | "expire"
}
export type Alarm = Seat<Deadline>

export class Deadlines {
  private readonly inOrder = new Window<Deadline>({ runsMax: Infinity, bytesMax: Infinity }, true)
  private seq = 0

  /** In place of the one before. */
  set(entry: Entry, kind: Deadline["kind"], at: number): void {
    this.clear(entry)
    entry.alarm = this.inOrder.offer({ entry, kind }, at, this.seq++, 0)
  }

  setUnlessEarlier(entry: Entry, kind: Deadline["kind"], at: number): void {
    if (entry.alarm === undefined || entry.alarm.key > at) this.set(entry, kind, at)
  }

  clear(entry: Entry): void {
    if (entry.alarm === undefined) return
    this.inOrder.remove(entry.alarm)
    entry.alarm = undefined
  }

  /** The next one that has passed. */
  take(now: number): Deadline | undefined {
    const head = this.inOrder.peek()
    if (head === undefined || head.key > now) return undefined
    this.clear(head.item.entry)
    return head.item
  }

  get next(): number {
    return this.inOrder.peek()?.key ?? Infinity
  }
}
