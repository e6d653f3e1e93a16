/**
 * Takes what running attempts of one partition tell, merges it, and writes it under the epoch of the owner. One write is under
 * way at a time; what comes meanwhile goes with the next.
 *
 * What a run has told is read once per owner, when it first tells something under it. Nothing here decides on a run: a
 * lost note costs a line, and a checkpoint is answered for only when it is durable.
 */
import type { Fenced, StoreUnavailable } from "@orrery/core/Errors"
import type { NotesBatch } from "@orrery/core/ProgressStore"
import type { RunId } from "@orrery/core/RunId"
import { noNotes, type NoteReport, type StoredNotes, withReport } from "@orrery/core/RunNotes"
import type { QueueSignal } from "@orrery/core/Signals"
import type { AttemptRef, OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Effect, Exit } from "effect"
import type { ActorHost } from "./ActorHost.js"
import type { QueueActor } from "./QueueActor.js"

/** Rows of one write. */
const rowsMax = 500
/** Runs remembered beyond those that run. */
const rememberedMax = 1_000

interface Waiting {
  readonly report: NoteReport
  readonly done: (answer: OutcomeAnswer | StoreUnavailable) => void
}

export class NoteDesk {
  private readonly known = new Map<RunId, StoredNotes>()
  private waiting: Array<Waiting> = []
  private isWriting = false
  private idle: Array<() => void> = []

  constructor(
    private readonly actor: QueueActor,
    private readonly host: ActorHost,
    private readonly signal: QueueSignal
  ) {}

  /** Answers in the order of the reports, once they are durable. */
  note(reports: ReadonlyArray<NoteReport>): Effect.Effect<ReadonlyArray<OutcomeAnswer>, StoreUnavailable> {
    return Effect.forEach(reports, (report) => this.one(report), { concurrency: Math.max(1, reports.length) })
  }

  private one(report: NoteReport): Effect.Effect<OutcomeAnswer, StoreUnavailable> {
    return Effect.async((resume) => {
      if (!this.actor.isOpen) return resume(Effect.succeed("not-owner"))
      if (!this.actor.machine.holds(report)) return resume(Effect.succeed("stale"))
      this.waiting.push({
        report,
        done: (answer) => resume(typeof answer === "string" ? Effect.succeed(answer) : Effect.fail(answer))
      })
      this.write()
    })
  }

  /**
   * The checkpoint that is there once all that came before is written. `undefined`: not the owner, or the attempt is not one of
   * its own: perhaps not yet, when it began under the owner before.
   */
  checkpoint(ref: AttemptRef): Effect.Effect<string | null | undefined, StoreUnavailable> {
    return Effect.async<void>((resume) => {
      if (!this.isWriting) return resume(Effect.void)
      this.idle.push(() => resume(Effect.void))
    }).pipe(
      Effect.zipRight(Effect.suspend(() => {
        const isOwn = this.actor.isOpen && this.actor.machine.holds(ref)
        return isOwn ? this.host.progress.checkpoint(ref.runId) : Effect.succeed(undefined)
      }))
    )
  }

  private write(): void {
    if (this.isWriting) return
    if (this.waiting.length === 0) {
      for (const each of this.idle.splice(0)) each()
      return
    }
    this.isWriting = true
    const batch = this.waiting.splice(0, rowsMax)
    this.host.fork(
      Effect.exit(this.commit(batch)).pipe(
        Effect.map((exit) => {
          this.isWriting = false
          this.settle(batch, exit)
          this.write()
        })
      )
    )
  }

  private readonly commit = Effect.fnUntraced(function*(
    this: NoteDesk,
    batch: ReadonlyArray<Waiting>
  ): Effect.fn.Return<ReadonlyMap<RunId, StoredNotes>, Fenced | StoreUnavailable> {
    const ids = new Set(batch.map(({ report }) => report.runId))
    const unknown = [...ids].filter((id) => !this.known.has(id))
    if (unknown.length > 0) {
      for (const id of unknown) this.known.set(id, noNotes(id))
      for (const notes of yield* this.host.progress.find(unknown)) this.known.set(notes.runId, notes)
    }
    const now = this.host.clock.now()
    const changed = new Map<RunId, StoredNotes>()
    const checkpoints = new Map<RunId, string>()
    for (const { report } of batch) {
      const before = changed.get(report.runId) ?? this.known.get(report.runId)!
      changed.set(report.runId, withReport(before, report, now))
      if (report.checkpoint !== undefined && report.lease >= before.lease) {
        checkpoints.set(report.runId, report.checkpoint)
      }
    }
    const rows: NotesBatch["rows"] = [...changed].map(([id, notes]) => ({ notes, checkpoint: checkpoints.get(id) }))
    yield* this.host.progress.write({ partitionId: this.actor.partitionId, epoch: this.actor.epoch, rows })
    return changed
  })

  private settle(
    batch: ReadonlyArray<Waiting>,
    exit: Exit.Exit<ReadonlyMap<RunId, StoredNotes>, Fenced | StoreUnavailable>
  ): void {
    if (Exit.isSuccess(exit)) {
      for (const [id, notes] of exit.value) this.known.set(id, notes)
      this.forget()
      this.signal.publish(() => [...exit.value.keys()].map((id) => ({ id, state: "running", isProgress: true })))
      for (const each of batch) each.done("accepted")
      return
    }
    // It may have been written or not: what is there is read again.
    for (const { report } of batch) this.known.delete(report.runId)
    const failure = exit.cause._tag === "Fail" ? exit.cause.error : undefined
    if (failure?._tag === "StoreUnavailable") {
      for (const each of batch) each.done(failure)
      return
    }
    if (failure?._tag === "Fenced") this.actor.replaced()
    for (const each of batch) each.done("not-owner")
  }

  /** What runs no more tells no more. */
  private forget(): void {
    if (this.known.size <= rememberedMax) return
    for (const id of this.known.keys()) {
      if (this.actor.machine.find(id)?.place !== "running") this.known.delete(id)
    }
  }
}
