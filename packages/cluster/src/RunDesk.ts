/**
 * What people ask of single runs of one partition: to cancel one, to edit one that waits. (Runs that a cancelled one has made
 * are nobody's children yet: flows will ask for each here.) A run that is only in the store is
 * looked up there, and dealt with in the turn in which that is answered, unless it has come to memory meanwhile, or been
 * there and left: then it is looked up anew.
 *
 * Edits on their way to the store are bounded in number and bytes: an edited run is in memory until it is written, wherever it waits.
 */
import type { Entry } from "@orrery/core/Entry"
import { type EditError, InvalidRequest, Overloaded, RunNotWaiting, type StoreUnavailable } from "@orrery/core/Errors"
import type { StoredRun } from "@orrery/core/Journal"
import { linesMax } from "@orrery/core/Lines"
import { changeOf, type Edited, editProblem, type RunEdit } from "@orrery/core/RunEdit"
import type { RunId } from "@orrery/core/RunId"
import { lineOf } from "@orrery/core/RunKeys"
import type { CancelAnswer } from "@orrery/core/Runs"
import { Deferred, Effect, FiberId } from "effect"
import { type ActorHost, type NotOwner, notOwner } from "./ActorHost.js"
import type { QueueActor } from "./QueueActor.js"

/** Edits that wait for their commit, in one partition. */
const editsMax = 2_000
/** Bytes of their payloads: 32 MiB. */
const editBytesMax = 32 * 1024 * 1024
const retryAfterMs = 200
/** Until a run whose insert is at the store is looked for again. */
const arrivingPause = "5 millis"

type Found = Entry | StoredRun | undefined

export class RunDesk {
  private edits = 0
  private bytes = 0

  constructor(private readonly actor: QueueActor, private readonly host: ActorHost) {}

  /** A waiting run is cancelled, durably, when it answers; a running one of an actor that retires by its heir. `undefined`: no such run here that is not final. */
  cancel(id: RunId): Effect.Effect<CancelAnswer | undefined, NotOwner | StoreUnavailable> {
    const { machine } = this.actor
    return this.withRun(id, (run, now): Effect.Effect<CancelAnswer | undefined, NotOwner> => {
      if (run === undefined) return Effect.succeed(undefined)
      // That a running one is to be cancelled is in memory only: it is for the heir, as soon as there is one.
      if (this.actor.isRetiring && ("place" in run ? run.place : run.state) === "running") {
        return Effect.zipRight(this.actor.stopped, Effect.fail(notOwner))
      }
      const known = machine.cancel(id, now)
      if (known !== "unknown" && known.answer === "requested") {
        this.carryOut()
        return Effect.succeed("requested")
      }
      const entry = known === "unknown" ? machine.cancelStored(run) : known.entry
      return entry === undefined ? Effect.fail(notOwner) : Effect.as(this.written(entry), "cancelled" as const)
    })
  }

  /** The run waits as it was told to, durably, when it answers. `undefined`: no such run here that is not final. */
  edit(
    id: RunId,
    edit: RunEdit
  ): Effect.Effect<Edited | undefined, NotOwner | StoreUnavailable | EditError> {
    return Effect.suspend(() => {
      const problem = editProblem(edit, this.host.payloadBytesMax) ?? this.overloaded(edit)
      if (problem !== undefined) return Effect.fail(problem)
      const bytes = edit.payload?.length ?? 0
      this.edits += 1
      this.bytes += bytes
      return Effect.ensuring(
        this.withRun(id, (run, now) => this.change(id, edit, run, now)),
        Effect.sync(() => {
          this.edits -= 1
          this.bytes -= bytes
        })
      )
    })
  }

  private change(
    id: RunId,
    edit: RunEdit,
    run: Found,
    now: number
  ): Effect.Effect<Edited | undefined, NotOwner | EditError> {
    if (run === undefined) return Effect.succeed(undefined)
    if ("place" in run && run.place === "finishing") {
      // Its end is told of when it is durable.
      const { state } = run.end!
      return Effect.zipRight(this.written(run), new RunNotWaiting({ runId: id, state }))
    }
    if (run.state === "running") return new RunNotWaiting({ runId: id, state: run.state })
    const change = changeOf(edit, run, now)
    if (change instanceof InvalidRequest) return Effect.fail(change)
    const { machine, name } = this.actor
    const line = lineOf(change.task ?? run.task, run.keys)
    if (run.keys !== null && !machine.hasRoomFor(line)) {
      const what = `distinct keys with waiting runs in ${name.namespace}/${name.queue}`
      return new Overloaded({ what, limit: linesMax, actual: linesMax, retryAfterMs })
    }
    const entry = machine.edit(run, change, now)
    if (entry === undefined) return Effect.fail(notOwner)
    const { priority, scheduledAt, state } = entry
    return Effect.as(this.written(entry), { id, state: state as Edited["state"], priority, scheduledAt })
  }

  private overloaded({ payload = "" }: RunEdit): Overloaded | undefined {
    const refuse = (what: string, limit: number, actual: number) =>
      new Overloaded({ what, limit, actual, retryAfterMs })
    if (this.edits >= editsMax) return refuse("edits waiting to be written", editsMax, this.edits)
    return this.bytes + payload.length > editBytesMax
      ? refuse("bytes of edits waiting to be written", editBytesMax, this.bytes)
      : this.host.overload()
  }

  /** `act` is called in the turn in which the run is found. */
  private withRun<A, E>(
    id: RunId,
    act: (run: Found, now: number) => Effect.Effect<A, E>
  ): Effect.Effect<A, E | NotOwner | StoreUnavailable> {
    return Effect.suspend((): Effect.Effect<A, E | NotOwner | StoreUnavailable> => {
      const { machine, partitionId } = this.actor
      if (!this.actor.isOpen) return Effect.fail(notOwner)
      const now = this.host.clock.now()
      this.actor.lastActive = now
      const known = machine.find(id)
      if (known !== undefined) return act(known, now)
      // Taken in as it was sent, once that is answered: a change made before would be lost.
      if (this.actor.isArriving(id)) return Effect.delay(this.withRun(id, act), arrivingPause)
      const endRead = machine.beginRead()
      return Effect.flatMap(this.host.store.findRun(partitionId, id), (stored) => {
        const isOld = endRead().has(id)
        if (!this.actor.isOpen) return Effect.fail(notOwner)
        return isOld || machine.knows(id) || this.actor.isArriving(id)
          ? this.withRun(id, act)
          : act(stored, this.host.clock.now())
      }).pipe(Effect.ensuring(Effect.sync(endRead)))
    })
  }

  /** Once the last known change of the run is committed. Asked for at once: the actor may end before the fiber goes on. */
  private written(entry: Entry): Effect.Effect<void, NotOwner> {
    const done = Deferred.unsafeMake<void, NotOwner>(FiberId.none)
    this.actor.wait(entry, {
      next: undefined,
      told: (answer) => Deferred.unsafeDone(done, answer === notOwner ? Effect.fail(notOwner) : Effect.void)
    })
    this.carryOut()
    return Deferred.await(done)
  }

  private carryOut(): void {
    this.actor.collect()
    this.actor.schedule()
  }
}
