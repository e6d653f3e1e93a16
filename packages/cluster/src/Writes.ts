/**
 * Changes of the runs of one actor on their way to the journal, one per run: a later change of a run replaces an earlier one that
 * was not sent. One batch is in flight; starts that a `Roll` shows go with it. Beside it they could become durable before the end
 * that has made room for them, and a crash between the two would break an order or a limit.
 */
import type { Entry } from "@orrery/core/Entry"
import type { Committed, JournalBatch, RunFinish, RunUpdate } from "@orrery/core/Journal"
import type { QueueMachine } from "@orrery/core/QueueMachine"
import type { Writing } from "@orrery/core/Reconciliation"

/** Changes of one commit of one actor. */
const batchRowsMax = 1_000

/** What an actor does with it. */
export interface Writer {
  readonly machine: QueueMachine
  /** Another copy of its request is under way. */
  readonly isArriving: (id: Entry["id"]) => boolean
  readonly hasArrivals: () => boolean
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
  /** Entries with something unwritten, oldest first. */
  private changes: Array<Entry> = []
  /** Those of the commit under way. */
  private sentChanges: ReadonlyArray<Entry> = []
  /** Changes are on their way to the store. */
  isChanging = false

  constructor(private readonly writer: Writer) {}

  /** What the machine wants written: each entry once until it is sent. */
  add(entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) this.changes.push(entry)
  }

  get waitingCount(): number {
    return this.changes.length
  }

  get isEmpty(): boolean {
    return this.waitingCount === 0 && !this.isChanging
  }

  get writing(): Writing & { readonly waiting: ReadonlyArray<Entry>; readonly sent: ReadonlyArray<Entry> } {
    return { waiting: this.changes, sent: this.sentChanges }
  }

  abandon(): void {
    this.changes = []
    this.sentChanges = []
  }

  flush(): void {
    if (!this.isChanging && this.changes.length > 0) this.flushChanges()
  }

  private flushChanges(): void {
    const { machine } = this.writer
    const hasArrivals = this.writer.hasArrivals()
    const roll = machine.rolls.begin()
    const updates: Array<RunUpdate> = []
    const finishes: Array<RunFinish> = []
    const sent: Array<Entry> = []
    const rest = this.changes.length > batchRowsMax ? this.changes.splice(batchRowsMax) : []
    const held: Array<Entry> = []
    for (const entry of this.changes) {
      if (entry.sent !== undefined || (hasArrivals && this.isHeld(entry))) held.push(entry)
      else {
        machine.send(entry, updates, finishes, roll)
        moveWaiters(entry)
        sent.push(entry)
      }
    }
    this.changes = held.length === 0 ? rest : held.concat(rest)
    if (sent.length === 0) return
    this.isChanging = true
    this.sentChanges = sent
    const ended = (): void => {
      this.isChanging = false
    }
    this.writer.commit({ inserts: [], updates, finishes, roll: roll.written }, ({ gone }) => {
      ended()
      this.sentChanges = []
      this.writer.committed(sent, gone, () => [...updates.filter(({ id }) => gone?.has(id) !== true), ...finishes])
    }, () => {
      this.sentChanges = []
      this.writer.notCommitted(sent, ended)
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

const moveWaiters = (entry: Entry): void => {
  entry.sentWaiters = entry.waiters
  entry.waiters = undefined
}
