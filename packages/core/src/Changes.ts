/**
 * What the journal is to be given of the runs in memory, and what it is writing. The last change of a run counts: it stands for
 * those before it that were not sent. The shell takes runs from `out.writes`, sends what there is of each, and says what became of it.
 */
import type { Deadlines } from "./Deadlines.js"
import { type Change, endAs, type Entry, finishOf, type Out, updateOf } from "./Entry.js"
import type { RunFinish, RunUpdate } from "./Journal.js"
import type { QueueControl } from "./QueueControl.js"
import { type Roll, Rolls } from "./Rolls.js"
import type { FinalState } from "./RunState.js"

export class Changes {
  readonly rolls = new Rolls()

  constructor(
    private readonly out: Pick<Out, "writes">,
    private readonly deadlines: Deadlines,
    private readonly control: QueueControl
  ) {}

  write(entry: Entry, change: Change = "update"): void {
    if (entry.unwritten === undefined) this.out.writes.push(entry)
    entry.unwritten = change
  }

  /** It waits, and takes its place once that is committed. */
  settle(entry: Entry): void {
    this.deadlines.clear(entry)
    entry.place = "settling"
    entry.seat = undefined
    this.write(entry)
  }

  finish(entry: Entry, state: FinalState, result: string | null, failure: string | null): void {
    this.deadlines.clear(entry)
    endAs(entry, { state, result, keptDays: this.control.kept[state] }, failure)
    this.write(entry, "finish")
  }

  /** What is to be written of an entry of `out.writes`, now: added to one of the lists. Later changes of it are another write. */
  send(entry: Entry, updates: Array<RunUpdate>, finishes: Array<RunFinish>, roll?: Roll): void {
    if (entry.unwritten === "finish") finishes.push(finishOf(entry))
    else if (entry.unwritten === "start" && roll !== undefined) roll.add(entry)
    else updates.push(updateOf(entry))
    entry.isSentEdited = entry.isEdited
    entry.isEdited = false
    entry.sent = entry.unwritten
    entry.unwritten = undefined
  }

  /** What was sent is committed: answers what that was. */
  committed(entry: Entry): Change | undefined {
    const { roll, sent } = entry
    entry.sent = undefined
    if (roll !== undefined) this.rolls.committed(entry, roll, sent === "start")
    return sent
  }

  /** Nothing of what was sent was written: it is in `out.writes` again. */
  notSent(entry: Entry): void {
    entry.isEdited ||= entry.isSentEdited
    if (entry.sent === "start") entry.roll?.leave(entry)
    if (entry.unwritten === undefined) {
      entry.unwritten = entry.sent
      this.out.writes.push(entry)
    }
    entry.sent = undefined
  }
}
