/**
 * The shell of one partition: takes what comes, feeds the `QueueMachine`, hands what it decides to the journal, and
 * lets answers out only after the commit they rest on (P10).
 *
 * One batch of changes is in flight at the journal; what is decided meanwhile gathers in `writes`. New runs travel beside it
 * (`Arrivals`). Everything happens in `pump`, in the actor's turn (`ActorTurns`), without fibers: fibers carry only commits and page reads.
 *
 * An actor ends by being closed (its shard moves, or it is idle), or by itself when it is fenced or cannot know what
 * became of a commit. Then its memory is worthless: what waits on it is told to ask the owner anew.
 */
import type { Overloaded } from "@orrery/core/Errors"
import { failpointsOf } from "@orrery/core/Failpoint"
import type { Committed, JournalBatch } from "@orrery/core/Journal"
import type { PartitionName, Takeover } from "@orrery/core/PartitionStore"
import type { Entry, Load, Waiter, WorkerPool } from "@orrery/core/Entry"
import type { QueueMachine } from "@orrery/core/QueueMachine"
import type { QueueRecord } from "@orrery/core/QueueSettings"
import type { Writing } from "@orrery/core/Reconciliation"
import type { RunId } from "@orrery/core/RunId"
import { requestProblem, type RunRequest } from "@orrery/core/RunRequest"
import type { QueueSignal } from "@orrery/core/Signals"
import type { AttemptRef, OutcomeAnswer, OutcomeReport } from "@orrery/core/WorkerProtocol"
import { Cause, Deferred, Duration, Effect, Exit, FiberId, Option } from "effect"
import { ReportAnswers, ReportWaiter, RowAnswers, tell } from "./Answers.js"
import { type Arrival, type Arrivals, type Place, refusalOf } from "./Arrivals.js"
import { makeMachine, rulesFor } from "./makeMachine.js"
import { NoteDesk } from "./NoteDesk.js"
import { readPages } from "./readPages.js"
import { groupByWorker } from "./groupByWorker.js"
import { Intake } from "./Intake.js"
import { type ActorHost, type NotOwner, notOwner, type RowAnswer, type StopReason } from "./ActorHost.js"
import { RunDesk } from "./RunDesk.js"
import { Watchers } from "./Watchers.js"
import { Writes } from "./Writes.js"

/** Unwritten changes at which nothing new is started: the database is not keeping up. */
const pendingWritesMax = 2_000
/** Lines whose heads are read in one statement. */
const linesPerRead = 200
/** Pause after the journal was full. */
const pause = Duration.millis(200)
/** A node that may not act is asked again after this, ms. */
const standStillMs = 250
const closeDeadline = Duration.seconds(5)

export class QueueActor {
  readonly partitionId: number
  readonly epoch: number
  readonly machine: QueueMachine
  private readonly intake: Intake
  private readonly arrivals: Arrivals
  private readonly writes: Writes
  /** Made known after this turn's commit is on its way: handlers that need no fiber run at once. */
  private assignments: QueueMachine["out"]["assignments"] = []
  private pumping = false
  private readonly turn = (): void => {
    this.pumping = false
    this.pump()
  }
  private closing = false
  readonly watchers = new Watchers()
  private readonly alarm: { readonly set: (at: number) => void; readonly stop: () => void }
  private readonly pool: WorkerPool
  /** For those who watch the queue from elsewhere. */
  private readonly signal: QueueSignal
  /** What its running attempts tell. */
  readonly notes: NoteDesk
  /** What people ask of its runs. */
  readonly desk: RunDesk
  private stopReason: StopReason | undefined
  private readonly stoppedSignal = Deferred.unsafeMake<StopReason>(FiberId.none)
  /** Why it ended, once it has. */
  readonly stopped: Effect.Effect<StopReason> = Deferred.await(this.stoppedSignal)
  /** Another node is about to take the partition over: nothing is started any more (`HandOver`). */
  isRetiring = false
  /** Database time of the last command, for passivation. */
  lastActive: number
  /** Of the settings of its queue that it goes by. */
  settingsRevision: number
  /** Commits begun: as long as it is the same, this actor has changed nothing in the store. */
  commits = 0

  constructor(readonly name: PartitionName, taken: Takeover, readonly host: ActorHost) {
    this.partitionId = taken.partitionId
    this.epoch = taken.epoch
    host.clock.observe(taken.now)
    this.lastActive = taken.now
    this.machine = makeMachine(host, name, taken, () => this.schedule())
    this.intake = new Intake(this, host)
    this.arrivals = this.intake.arrivals
    this.writes = new Writes({
      machine: this.machine,
      isArriving: (id) => this.arrivals.has(id),
      commit: (changes, onCommitted, onOverloaded) => this.commit(changes, onCommitted, onOverloaded),
      committed: (entries, gone, told) => {
        this.signal.publish(told)
        this.written(entries, gone)
      },
      notCommitted: (entries, goOn) => this.notWritten(entries, goOn)
    })
    this.settingsRevision = taken.settings?.revision ?? 0
    this.alarm = host.makeAlarm(() => this.pump())
    this.pool = host.workers.poolFor(this)
    this.signal = host.signals.queue(name)
    this.notes = new NoteDesk(this, host, this.signal)
    this.desk = new RunDesk(this, host)
  }

  /** The partition has an owner of a later epoch: what this one remembers is of the past. */
  replaced(): void {
    this.stop("fenced")
  }

  get hasAttemptsOut(): boolean {
    return this.machine.runningCount > 0
  }

  get isStopped(): boolean {
    return this.stopReason !== undefined
  }

  get isOpen(): boolean {
    return this.stopReason === undefined && !this.closing
  }

  /** Settings of its queue, from now on; older ones than it has are left aside. */
  configure(record: QueueRecord): void {
    if (this.stopReason !== undefined || record.revision <= this.settingsRevision) return
    this.settingsRevision = record.revision
    this.machine.configure(rulesFor(this.host, this.name, record), this.host.clock.now())
    this.schedule()
  }

  /** One answer per request, in order, after the commit. `NotOwner` when the fate of some is unknown. */
  enqueue(requests: ReadonlyArray<RunRequest>): Effect.Effect<ReadonlyArray<RowAnswer>, NotOwner> {
    return Effect.async<ReadonlyArray<RowAnswer>, NotOwner>((resume) => {
      if (!this.isOpen) return resume(Effect.fail(notOwner))
      if (requests.length === 0) return resume(Effect.succeed([]))
      const answers = new RowAnswers(requests.length, resume)
      const now = this.host.clock.now()
      this.lastActive = now
      const overload = this.host.overload()
      for (let at = 0; at < requests.length; at++) this.accept(requests[at]!, now, overload, { to: answers, at })
      this.schedule()
    })
  }

  private accept(request: RunRequest, now: number, overload: Overloaded | undefined, place: Place): void {
    const problem = requestProblem(request, this.host.payloadBytesMax)
    if (problem !== undefined) return place.to.set(place.at, problem)
    // Stored already, by an earlier sending of the same request.
    if (this.machine.knows(request.id)) return place.to.set(place.at, "stored")
    if (overload !== undefined) return place.to.set(place.at, refusalOf(request, overload))
    this.intake.add(request, now, place)
  }

  /** One answer per report, after the commit. */
  report(reports: ReadonlyArray<OutcomeReport>): Effect.Effect<ReadonlyArray<OutcomeAnswer>> {
    return Effect.async((resume) => {
      if (reports.length === 0) return resume(Effect.succeed([]))
      const answers = new ReportAnswers(reports.length, (all) => resume(Effect.succeed(all)))
      this.outcomes(reports, [...reports.keys()], answers)
    })
  }

  /** As `report`; the answers go to these places. */
  outcomes(reports: ReadonlyArray<OutcomeReport>, places: ReadonlyArray<number>, answers: ReportAnswers): void {
    if (this.stopReason !== undefined) {
      for (const place of places) answers.set(place, notOwner)
      return
    }
    const now = this.host.clock.now()
    this.lastActive = now
    for (let at = 0; at < reports.length; at++) {
      const report = reports[at]!
      const entry = this.machine.outcome(report, report.outcome, now) ?? this.toldBefore(report)
      if (entry === undefined) answers.set(places[at]!, "stale")
      else this.wait(entry, new ReportWaiter(answers, places[at]!))
    }
    this.collect()
    this.schedule()
  }

  /** The run of an outcome that came over a connection that broke, and whose commit is still to come. */
  private toldBefore(report: OutcomeReport): Entry | undefined {
    const entry = this.machine.find(report.runId)
    const isSame = entry !== undefined && entry.lease === report.lease && entry.place !== "running"
    return isSame && (entry.unwritten !== undefined || entry.sent !== undefined) ? entry : undefined
  }

  /** The waiter is told when the last known change of the run is committed. */
  wait(entry: Entry, waiter: Waiter): void {
    if (entry.unwritten !== undefined) {
      waiter.next = entry.waiters
      entry.waiters = waiter
    } else if (entry.sent !== undefined) {
      waiter.next = entry.sentWaiters
      entry.sentWaiters = waiter
    } else waiter.told("committed")
  }

  /** As `QueueMachine.announce`; `undefined` when this actor has ended. */
  announce(worker: string, attempts: ReadonlyArray<AttemptRef>): ReturnType<QueueMachine["announce"]> | undefined {
    if (this.stopReason !== undefined) return undefined
    const answer = this.machine.announce(worker, attempts)
    // At once: the hub counts anew what is out, and would take what is freed later off once more.
    this.collect()
    this.schedule()
    return answer
  }

  /** What the worker was given until now is lost unless it announces it within the grace. */
  doubt(worker: string, graceMs: number): void {
    // What it is given until now goes before the question what it holds.
    this.collect()
    this.assign()
    this.machine.doubt(worker, this.host.clock.now() + graceMs)
    this.schedule()
  }

  workerGone(worker: string): void {
    this.machine.workerGone(worker)
    this.collect()
    this.schedule()
  }

  cancel(id: RunId): ReturnType<RunDesk["cancel"]> {
    return this.desk.cancel(id)
  }

  /** A request for this run is on its way to the store, and not answered. */
  isArriving(id: RunId): boolean {
    return this.arrivals.has(id)
  }

  /** Calls back once the end of the run is committed, or this actor ends. Answers how to stop watching. */
  watch(id: RunId, changed: () => void): () => void {
    if (this.stopReason !== undefined) {
      changed()
      return () => undefined
    }
    return this.watchers.add(id, changed)
  }

  /** Nothing waits, runs, or is on its way to the database. */
  get isIdle(): boolean {
    return this.intake.isEmpty && this.writes.isEmpty &&
      this.watchers.isEmpty &&
      this.machine.isIdle
  }

  /** Nothing is on its way to the store. */
  get isWritten(): boolean {
    return this.arrivals.isEmpty && this.writes.isEmpty && this.machine.out.writes.length === 0
  }

  /** For the reconciler: entries with changes, as yet to be sent and as sent. */
  get writing(): Writing {
    const { sent, waiting } = this.writes.entries
    return { waiting: [...waiting, ...this.machine.out.writes], sent }
  }

  /** Takes nothing new, writes what it has decided, ends. Bounded by 5 s. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closing = true
    this.collect()
    this.flush()
    return Effect.iterate(undefined, {
      while: () =>
        this.stopReason === undefined &&
        (!this.writes.isEmpty || !this.intake.isEmpty),
      body: () => Effect.sleep("5 millis")
    }).pipe(
      Effect.timeoutOption(closeDeadline),
      Effect.zipRight(Effect.sync(() => this.stop("closed")))
    )
  })

  /** Something may have become possible: do it soon, together with what else comes in this turn of the loop. */
  schedule(): void {
    if (this.pumping || this.stopReason !== undefined) return
    this.pumping = true
    this.host.turns.add(this.turn)
  }

  private pump(): void {
    if (this.stopReason !== undefined) return
    const now = this.host.clock.now()
    this.machine.tick(now)
    this.collect()
    this.flush()
    const mayAct = this.host.mayAct()
    const mayStart = mayAct && !this.closing && !this.isRetiring && this.writes.waitingCount < pendingWritesMax
    this.start(now, mayStart)
    this.host.workers.wanting(this, mayStart)
    const nextTick = this.machine.nextTick()
    this.alarm.set(mayAct || this.machine.isIdle ? nextTick : Math.min(nextTick, now + standStillMs))
  }

  /**
   * The marks of these starts go with the next turn: what a worker in this process ends at once needs none then, its end is
   * all that is written. Those that workers wait for go now.
   */
  private start(now: number, mayStart: boolean): void {
    if (mayStart) this.machine.dispatch(now, this.pool)
    const { writes } = this.machine.out
    const isAwaited = writes.some((entry) => entry.isGated)
    const hasStarted = writes.length > 0
    this.collect()
    this.assign()
    if (isAwaited) this.flush()
    else if (hasStarted && !this.writes.isWriting) this.schedule()
  }

  /** Carries out what the machine has decided. */
  collect(): void {
    const out = this.machine.out
    if (out.writes.length > 0) {
      this.writes.add(out.writes)
      out.writes = []
    }
    if (out.freed.length > 0) {
      const freed = out.freed
      out.freed = []
      this.host.workers.freed(freed)
    }
    if (out.assignments.length > 0) {
      this.assignments = this.assignments.length === 0 ? out.assignments : this.assignments.concat(out.assignments)
      out.assignments = []
    }
    if (out.cancels.length > 0) {
      const cancels = out.cancels
      out.cancels = []
      for (const [worker, list] of groupByWorker(cancels, (each) => each.attempt)) {
        this.host.workers.interrupt(worker, list)
      }
    }
    if (out.loads.length > 0) {
      const loads = out.loads
      out.loads = []
      const lines: Array<Load> = []
      for (const load of loads) {
        if (load.line === undefined) this.read([load])
        else if (lines.push(load) === linesPerRead) this.read(lines.splice(0))
      }
      if (lines.length > 0) this.read(lines)
    }
  }

  private assign(): void {
    const assignments = this.assignments
    if (assignments.length === 0) return
    this.assignments = []
    for (const [worker, list] of groupByWorker(assignments, (each) => each.assignment)) {
      this.host.workers.assign(worker, list)
    }
  }

  private flush(): void {
    this.intake.read()
    if (this.intake.holdsCommits(this.writes.isWriting)) return
    for (let batch = this.arrivals.take(); batch !== undefined; batch = this.arrivals.take()) this.flushArrivals(batch)
    this.writes.flush()
  }

  private flushArrivals(batch: ReadonlyArray<Arrival>): void {
    this.commit(
      { inserts: batch, updates: [], finishes: [], ...(batch[0]!.fromInbox ? { fromInbox: true } : {}) },
      ({ duplicates }) => {
        for (const { run } of batch) if (!duplicates.has(run.id)) this.machine.admitNew(run)
        this.signal.publish(() => batch.flatMap(({ run }) => duplicates.has(run.id) ? [] : [run]))
        this.intake.settle(batch, "stored", duplicates)
      },
      // Nothing was written: callers are told.
      (overloaded) => {
        this.intake.settle(batch, overloaded)
        // An end may have waited for it.
        this.schedule()
      }
    )
  }

  private commit(
    changes: Omit<JournalBatch, "partitionId" | "epoch">,
    onCommitted: (committed: Committed) => void,
    onOverloaded: (overloaded: Overloaded) => void
  ): void {
    const batch = { partitionId: this.partitionId, epoch: this.epoch, ...changes }
    this.commits += 1
    failpointsOf(batch, "before-commit")
    this.host.journal.submit(batch, (result) => {
      if (this.stopReason !== undefined) return
      if (Exit.isFailure(result)) {
        const failure = Option.getOrUndefined(Cause.failureOption(result.cause))
        if (failure?._tag === "Overloaded") return onOverloaded(failure)
        // Fenced, or the fate of the batch is unknown: this memory may be wrong.
        return this.stop(failure?._tag === "Fenced" ? "fenced" : "unavailable")
      }
      failpointsOf(batch, "after-commit")
      this.host.clock.observe(result.value.now)
      onCommitted(result.value)
      if (this.machine.numbers.isExhausted) return this.stop("exhausted")
      this.schedule()
    })
  }

  private written(sent: ReadonlyArray<Entry>, gone: Committed["gone"]): void {
    for (const entry of sent) {
      const isGone = gone?.has(entry.id) === true
      const hasEnded = entry.sent === "finish" || isGone
      this.machine.committed(entry, isGone)
      if (hasEnded) {
        this.intake.ended(entry)
        this.watchers.notify(entry.id)
      }
      const waiters = entry.sentWaiters
      entry.sentWaiters = undefined
      tell(waiters, "committed")
    }
  }

  /** The journal is full: what was decided is kept and offered again. */
  private notWritten(sent: ReadonlyArray<Entry>, goOn: () => void): void {
    for (const entry of sent) {
      this.machine.changes.notSent(entry)
      const waiters = entry.sentWaiters
      entry.sentWaiters = undefined
      // Whatever is written of it next, these waited for it too.
      for (let waiter = waiters; waiter !== undefined;) {
        const { next } = waiter
        this.wait(entry, waiter)
        waiter = next
      }
    }
    this.collect()
    this.host.fork(
      Effect.sleep(pause).pipe(Effect.zipRight(Effect.sync(() => {
        goOn()
        this.schedule()
      })))
    )
  }

  private read(loads: ReadonlyArray<Load>): void {
    const read = readPages(this.host, this.partitionId, loads)
    this.host.fork(
      Effect.map(read, (exit) => {
        if (this.stopReason !== undefined) return
        for (const [at, { line }] of loads.entries()) {
          if (Exit.isFailure(exit)) this.machine.loadFailed(line)
          else this.machine.loaded(line, exit.value[at]!.runs, exit.value[at]!.complete, this.arrivals)
        }
        this.schedule()
      })
    )
  }

  private stop(reason: StopReason): void {
    if (this.stopReason !== undefined) return
    this.stopReason = reason
    this.machine.lines.gates.abandon()
    this.alarm.stop()
    this.intake.abandon(notOwner)
    const { sent, waiting } = this.writing
    for (const entry of [...waiting, ...sent]) {
      tell(entry.waiters, notOwner)
      tell(entry.sentWaiters, notOwner)
      entry.waiters = undefined
      entry.sentWaiters = undefined
    }
    this.writes.abandon()
    this.assignments = []
    this.watchers.notifyAll()
    Deferred.unsafeDone(this.stoppedSignal, Effect.succeed(reason))
  }
}
