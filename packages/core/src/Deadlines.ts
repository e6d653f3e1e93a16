/** When attempts have had their time, as far as their owner is concerned. */
import type { Entry } from "./Entry.js"
import { Window } from "./Window.js"

export interface Deadline {
  readonly entry: Entry
  readonly kind: "timeout" | "cancel"
  /** Of the attempt that is meant; there may be another one by then. */
  readonly lease: number
}

export class Deadlines {
  private readonly inOrder = new Window<Deadline>({ runsMax: Infinity, bytesMax: Infinity }, true)
  private seq = 0

  set(entry: Entry, kind: Deadline["kind"], at: number): void {
    this.inOrder.offer({ entry, kind, lease: entry.lease }, at, this.seq++, 0)
  }

  /** The next one that has passed. */
  take(now: number): Deadline | undefined {
    const head = this.inOrder.peek()
    if (head === undefined || head.key > now) return undefined
    this.inOrder.remove(head)
    return head.item
  }

  get next(): number {
    return this.inOrder.peek()?.key ?? Infinity
  }
}
