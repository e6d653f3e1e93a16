/**
 * The heart: one partition of a queue as a state machine without effects. Commands come with the time (the
 * owner's estimate of the database clock); what follows is gathered in `out` for the shell to carry out:
 *
 * - `writes`: runs with changes for the journal. One that shall wait again is out of line (`settling`) until the shell
 *   says that the change is committed; so nothing is assigned on state that could still be lost.
 * - `assignments`, `cancels`: messages to workers, to be sent at once: what they rest on is committed.
 * - `loads`: pages of windows to be read.
 *
 * Which runs are in memory: all that are running, those that settle, and the head of each line: one `Window` per
 * task for ready runs (so that runs nobody can execute do not hide others) and one for runs that wait for their
 * time. Order among the tasks of a queue is by (orderKey, seq), over all of them.
 *
 * A lease number, `epoch * 2^30 + n`, grows with every grant and every owner. With it an attempt is accepted or
 * refused as stale: an outcome counts only for the lease under which the run is running now.
 *
 * Its parts: `Waiting` and `Lines` (what waits, and whose turn it is), `AttemptsOut` (what is out, and what follows its end),
 * `Changes` (what is to be written).
 */
import { AttemptsOut } from "./AttemptsOut.js"
import { Changes } from "./Changes.js"
import { type Deadline, Deadlines } from "./Deadlines.js"
import { crowdedText, type Edit, type Entry, entryOf, type Out, replacedText, type WorkerPool } from "./Entry.js"
import type { StoredRun } from "./Journal.js"
import type { Leases } from "./Leases.js"
import { Lines } from "./Lines.js"
import type { MachineOptions, Taken } from "./MachineOptions.js"
import { Numbers } from "./Numbers.js"
import { QueueControl } from "./QueueControl.js"
import type { QueueRules } from "./QueueSettings.js"
import { RetryBudgets } from "./RetryBudgets.js"
import type { Outcome } from "./Run.js"
import type { RunId } from "./RunId.js"
import { isOrdered } from "./RunKeys.js"
import * as RunTimes from "./RunTimes.js"
import { type Arriving, Waiting } from "./Waiting.js"
import type { AttemptRef } from "./WorkerProtocol.js"

export class QueueMachine {
  readonly out: Out = { writes: [], assignments: [], cancels: [], loads: [], freed: [] }
  private readonly entries = new Map<RunId, Entry>()
  readonly lines: Lines
  private readonly waiting: Waiting
  private readonly deadlines = new Deadlines()
  readonly control: QueueControl
  readonly changes: Changes
  private readonly attempts: AttemptsOut
  readonly leases: Leases
  /** The latest time that came with a command. */
  private now: number
  /** For arrivals and leases. */
  readonly numbers: Numbers

  constructor(
    private readonly options: MachineOptions,
    taken: Taken
  ) {
    this.now = taken.now
    this.numbers = new Numbers(options.epoch)
    const takenOverAt = options.epoch === 1 ? undefined : taken.now
    this.lines = new Lines({ ...options, takenOverAt })
    this.control = new QueueControl(options, takenOverAt, taken.now)
    this.changes = new Changes(this.out, this.deadlines, this.control)
    this.attempts = new AttemptsOut({
      partitionId: options.partitionId,
      maxCrashes: options.maxCrashes,
      out: this.out,
      lines: this.lines,
      control: this.control,
      budgets: new RetryBudgets(takenOverAt),
      numbers: this.numbers,
      deadlines: this.deadlines,
      changes: this.changes,
      orderKeyOf: (entry) => this.orderKeyOf(entry)
    })
    this.leases = this.attempts.leases
    this.waiting = new Waiting(this.lines, options.window, taken, {
      has: (id) => this.entries.has(id),
      add: (entry) => this.entries.set(entry.id, entry),
      forget: (entry) => this.forget(entry),
      settle: (entry) => this.changes.settle(entry),
      numbers: this.numbers,
      orderKeyOf: (entry) => this.orderKeyOf(entry),
      seated: (entry) => this.armExpiry(entry),
      load: (load) => this.out.loads.push(load)
    })
    for (const run of taken.running) {
      const entry = entryOf(run)
      this.entries.set(entry.id, entry)
      this.lines.claim(entry, false)
      this.attempts.adopt(entry, run.worker ?? "", taken.now)
      this.doubt(run.worker ?? "", taken.adoptUntil)
    }
  }

  /** What is said of the queue from now on. Nothing that runs is ended by it. */
  configure(rules: QueueRules, now: number): void {
    this.control.apply(rules, now)
    this.lines.apply(rules, now)
  }

  /** Place in line. In an ordered one that is the order of arrival. */
  orderKeyOf(
    run: { readonly line: string; readonly scheduledAt: number; readonly priority: number; readonly seq: number }
  ) {
    return isOrdered(run.line) ? run.seq : run.scheduledAt + run.priority * this.options.agingStepMs
  }

  /** Whether runs of this line may be taken in: there are so many others. */
  hasRoomFor(line: string): boolean {
    return this.lines.hasRoomFor(line)
  }

  get isIdle(): boolean {
    return this.entries.size === 0 && this.waiting.isEmpty
  }

  get runningCount(): number {
    return this.leases.count
  }

  /** Slots that the attempts take which this worker has out under this owner. */
  heldBy(worker: string): number {
    return this.leases.slotsOf(worker)
  }

  get entryCount(): number {
    return this.entries.size
  }

  knows(id: RunId): boolean {
    return this.entries.has(id)
  }

  find(id: RunId): Entry | undefined {
    return this.entries.get(id)
  }

  /** Of the runs that may start, and whose task is among `tasks`: most slots that one asks for, up to so many; 0: there is none. */
  wants(tasks: ReadonlySet<string>, slots = Infinity): number {
    return this.control.mayStart(this.now, this.leases.count) ? this.lines.wants(tasks, slots) : 0
  }

  /** A run whose insert is committed. */
  admitNew(run: StoredRun): void {
    if (this.entries.has(run.id) || !this.waiting.wouldHold(run)) return
    const entry = entryOf(run)
    this.entries.set(entry.id, entry)
    entry.place = "settling"
    if (entry.told?.limits !== undefined && this.crowdsOut(entry)) return
    this.admit(entry)
  }

  /** Puts an end to what the run leaves no room for: true when that is itself. */
  private crowdsOut(entry: Entry): boolean {
    for (const other of this.lines.claim(entry, true)) {
      if (other === entry) {
        this.changes.finish(entry, "cancelled", null, crowdedText())
        return true
      }
      other.failure ??= replacedText(entry)
      this.cancel(other.id, this.now)
    }
    return false
  }

  /** What was sent is committed: who waits takes its place, who has ended goes. `isGone`: its handler had ended it meanwhile. */
  committed(entry: Entry, isGone = false): void {
    const sent = this.changes.committed(entry)
    if (sent === "finish" || (isGone && entry.place === "settling" && entry.unwritten === undefined)) {
      this.forget(entry)
      this.letGo(entry)
    } else if (entry.unwritten === undefined) {
      if (entry.place === "settling") this.admit(entry)
      else if (entry.isGated && entry.place === "running") this.attempts.assign(entry, this.now)
    }
  }

  /** It is final: what it kept others from is free. */
  private letGo(entry: Entry): void {
    if (isOrdered(entry.line)) this.lines.freed(entry, this.now)
  }

  private admit(entry: Entry): void {
    if (!this.waiting.enter(entry, this.now)) this.forget(entry)
    if (isOrdered(entry.line)) this.lines.freed(entry, this.now)
  }

  /** Moves what is due, notices what has run out, and asks for pages. */
  tick(now: number): void {
    this.now = now
    this.waiting.moveDue(now)
    for (let due = this.deadlines.take(now); due !== undefined; due = this.deadlines.take(now)) this.deadlinePassed(due)
    this.attempts.giveUpLost(now)
    for (const entry of this.changes.rolls.due(now)) this.changes.write(entry)
    this.lines.tick(now)
    for (const entry of this.lines.gates.unpermitted(() => this.entries.values())) this.attempts.interrupt(entry)
    this.waiting.fill(now)
  }

  /** When `tick` has something to do by the clock, ms; `Infinity` when never. */
  nextTick(): number {
    return Math.min(
      this.deadlines.next,
      this.leases.nextExpiry(),
      this.changes.rolls.nextTick(),
      this.waiting.nextTick(),
      this.lines.nextTick(),
      this.control.nextTick(this.now)
    )
  }

  /** Gives runs that may start to workers with a free slot, in their order. */
  dispatch(now: number, pool: WorkerPool): void {
    this.now = now
    this.lines.unblock()
    while (this.control.mayStart(now, this.leases.count)) {
      const line = this.lines.next(now, pool)
      if (line === undefined) return
      const entry = line.window.peek()!.item
      if (entry.alarm !== undefined && entry.alarm.key <= now) {
        this.expire(entry)
        continue
      }
      const isHeld = this.control.holds(line, this.leases, pool)
      const worker = isHeld ? undefined : pool.take(entry.task, entry.isSuspect || line.isPrompt, line.need)
      if (worker === undefined) {
        this.lines.block(line, isHeld)
        continue
      }
      this.waiting.take(line, entry)
      const started = this.lines.started(line, entry, now, this.control.isExact)
      this.waiting.shortened(line)
      this.attempts.start(entry, worker, now, started)
      entry.isBehind = pool.isBehind?.(worker) ?? false
    }
  }

  /** `undefined`: stale. Else the run whose end or next wait is now in `out.writes`. */
  outcome(ref: AttemptRef, outcome: Outcome, now: number): Entry | undefined {
    this.now = now
    const entry = this.runningUnder(ref)
    if (entry !== undefined) this.attempts.outcome(entry, outcome, now)
    return entry
  }

  /**
   * The worker's session is gone, or replaced by a new one: unless it announces them by `expiresAt`, the attempts it has
   * been given until now count as crashed.
   */
  doubt(worker: string, expiresAt: number): void {
    this.leases.doubt(worker, expiresAt, this.numbers.upcoming)
  }

  /** The worker said goodbye: what it still holds goes back, uncounted. */
  workerGone(worker: string): void {
    for (const entry of this.leases.of(worker)) this.attempts.takeBack(entry, this.now)
  }

  /** Whether the attempt is running under exactly this lease. */
  holds(ref: AttemptRef): boolean {
    return this.runningUnder(ref) !== undefined
  }

  private runningUnder({ lease, runId }: AttemptRef): Entry | undefined {
    const entry = this.entries.get(runId)
    return entry?.place === "running" && entry.lease === lease ? entry : undefined
  }

  /**
   * A worker tells which attempts of this partition it holds. They stay its own where the lease is still the last
   * one; what the books say it holds, but it does not, goes back uncounted: the assignment never arrived, or was let go of.
   * Answers those it must drop. `adopted` counts those that take a slot again, `takenBack` those that went back.
   */
  announce(worker: string, attempts: ReadonlyArray<AttemptRef>): {
    readonly stale: ReadonlyArray<AttemptRef>
    readonly adopted: number
    readonly takenBack: number
  } {
    const stale: Array<AttemptRef> = []
    const kept = new Set<Entry>()
    let adopted = 0
    let takenBack = 0
    for (const ref of attempts) {
      const entry = this.entries.get(ref.runId)
      if (entry !== undefined && entry.place === "running" && entry.lease === ref.lease) {
        kept.add(entry)
        adopted += 1
      } else if (
        entry !== undefined && entry.place === "ready" && ref.lease > entry.lease && this.numbers.isOfFormer(ref.lease)
      ) {
        // Started under the former owner, which died before it could note it. What one before that had started it may have begun anew.
        this.waiting.leave(entry, this.now)
        entry.attempt = ref.attempt
        entry.lease = ref.lease
        entry.state = "running"
        entry.startedAt = this.now
        this.attempts.adopt(entry, worker, this.now)
        this.changes.write(entry)
        kept.add(entry)
        adopted += 1
      } else {
        stale.push(ref)
      }
    }
    for (const entry of this.leases.settle(worker, this.numbers.first)) {
      // Its worker is told once the start is durable.
      if (entry.isGated) continue
      if (kept.has(entry)) {
        if (entry.cancelRequested) this.attempts.interrupt(entry)
        continue
      }
      takenBack += 1
      this.attempts.takeBack(entry, this.now)
    }
    return { stale, adopted, takenBack }
  }

  /** `unknown`: not in memory, the store must be asked. */
  cancel(id: RunId, now: number): { readonly answer: "cancelled" | "requested"; readonly entry: Entry } | "unknown" {
    const entry = this.entries.get(id)
    this.now = now
    if (entry === undefined) return "unknown"
    switch (entry.place) {
      case "running":
        this.attempts.cancel(entry, now)
        return { answer: "requested", entry }
      case "finishing":
        return { answer: "cancelled", entry }
      default:
        this.waiting.leave(entry, this.now)
        this.changes.finish(entry, "cancelled", null, entry.failure)
        return { answer: "cancelled", entry }
    }
  }

  /** A run of the store that is not in memory, and waits, is cancelled. `undefined`: it has come to memory meanwhile. */
  cancelStored(run: StoredRun): Entry | undefined {
    if (this.entries.has(run.id)) return undefined
    const entry = entryOf(run)
    this.entries.set(entry.id, entry)
    this.changes.finish(entry, "cancelled", null, entry.failure)
    return entry
  }

  /**
   * A run that waits, in memory or only in the store, is changed: out of line until that is committed, so that it does not start on
   * what could still be lost. `undefined`: it does not wait any more, or has come to memory meanwhile.
   */
  edit(run: Entry | StoredRun, edit: Edit, now: number): Entry | undefined {
    this.now = now
    return this.waiting.edit(run, edit, now)
  }

  /** Runs that leave memory from now on, told once, when asked for: what a look at the store shows of them may be of the past. */
  beginRead(): () => ReadonlySet<RunId> {
    return this.waiting.beginRead()
  }

  /**
   * A page asked for in `out.loads` is there. `arrivals`: new runs whose commit has not been answered. They may be in the
   * page, but are taken in by `admitNew` only: else one could come, run and be forgotten before that, and come again.
   */
  loaded(name: string | undefined, runs: ReadonlyArray<StoredRun>, complete: boolean, arrivals?: Arriving): void {
    this.waiting.loaded(name, runs, complete, this.now, arrivals)
  }

  loadFailed(name: string | undefined): void {
    this.waiting.loadFailed(name, this.now)
  }

  /** In line for too long. */
  private expire(entry: Entry): void {
    this.waiting.leave(entry, this.now)
    this.changes.finish(entry, "expired", null, RunTimes.expiryText(entry, this.now))
  }

  private armExpiry(entry: Entry): void {
    const at = RunTimes.expiresAt(entry)
    if (at < Infinity) this.deadlines.set(entry, "expire", at)
  }

  private deadlinePassed({ entry, kind }: Deadline): void {
    if (kind === "expire") return this.expire(entry)
    this.attempts.overdue(entry, kind, this.now)
  }

  private forget(entry: Entry): void {
    this.deadlines.clear(entry)
    entry.place = "out"
    if (entry.claims !== undefined) this.lines.unclaim(entry, this.now)
    this.entries.delete(entry.id)
    this.waiting.forgotten(entry.id)
  }
}
