/**
 * Changes of the runs of one actor on their way to the journal, one per run: a later change of a run replaces an earlier one that
 * was not sent. One batch is in flight; starts that a `Roll` shows go with it. Beside it they could become durable before the end
 * that has made room for them, and a crash between the two would break an order (docs/decisions/0038).
 */
import type { Entry } from "@orrery/core/Entry"
import type { Committed, JournalBatch, RunFinish, RunUpdate } from "@orrery/core/Journal"
import type { QueueMachine } from "@orrery/core/QueueMachine"

/** Changes of one commit of one actor. */
const batchRowsMax = 1_000

/** What an actor does with it. */
export interface Writer {
  readonly machine: QueueMachine
  /** Another copy of its request is under way. */
  readonly isArriving: (id: Entry["id"]) => boolean
  readonly commit: (
    changes: Omit<JournalBatch, "partitionId" | "epoch">,
    onCommitted: (committed: Committed) => void,
    /** Nothing was written. */
    onOverloaded: () => void
  ) => void
  readonly committed: (
    entries: ReadonlyArray<Entry>,
    gone: Committed["gone"],
    told: () => ReadonlyArray<RunUpdate | RunFinish>
  ) => void
  /** `goOn`: may be tried again. */
  readonly notCommitted: (entries: ReadonlyArray<Entry>, goOn: () => void) => void
}

export class Writes {
  /** Entries with something unwritten, oldest first; and those of the commit under way. */
  private waiting: Array<Entry> = []
  private sent: ReadonlyArray<Entry> = []
  private isSending = false

  constructor(private readonly writer: Writer) {}

  /** What the machine wants written: each entry once until it is sent. */
  add(entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) this.waiting.push(entry)
  }

  get waitingCount(): number {
    return this.waiting.length
  }

  /** Changes are on their way to the store. */
  get isWriting(): boolean {
    return this.isSending
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0 && !this.isSending
  }

  get entries(): { readonly waiting: ReadonlyArray<Entry>; readonly sent: ReadonlyArray<Entry> } {
    return { waiting: this.waiting, sent: this.sent }
  }

  abandon(): void {
    this.waiting = []
    this.sent = []
  }

  flush(): void {
    if (this.isSending || this.waiting.length === 0) return
    const { machine } = this.writer
    const roll = machine.changes.rolls.begin()
    const updates: Array<RunUpdate> = []
    const finishes: Array<RunFinish> = []
    const sent: Array<Entry> = []
    const held: Array<Entry> = []
    const rest = this.waiting.length > batchRowsMax ? this.waiting.splice(batchRowsMax) : []
    for (const entry of this.waiting) {
      if (this.isHeld(entry)) held.push(entry)
      else {
        machine.changes.send(entry, updates, finishes, roll)
        entry.sentWaiters = entry.waiters
        entry.waiters = undefined
        sent.push(entry)
      }
    }
    this.waiting = held.length === 0 ? rest : held.concat(rest)
    if (sent.length === 0) return
    this.isSending = true
    this.sent = sent
    const goOn = (): void => {
      this.isSending = false
    }
    this.writer.commit({ inserts: [], updates, finishes, roll: roll.written }, ({ gone }) => {
      goOn()
      this.sent = []
      this.writer.committed(sent, gone, () => [...updates.filter(({ id }) => gone?.has(id) !== true), ...finishes])
    }, () => {
      this.sent = []
      this.writer.notCommitted(sent, goOn)
    })
  }

  /**
   * The end of a run waits for another copy of its request that is under way: the two would be committed side by side, on
   * two connections, neither would see the other, and the run would be made anew after its end.
   */
  private isHeld(entry: Entry): boolean {
    return entry.unwritten === "finish" && this.writer.isArriving(entry.id)
  }
}
