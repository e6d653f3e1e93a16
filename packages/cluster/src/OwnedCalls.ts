/** What the owner of a partition answers: calls on an actor that lives here, in the words of the `Runs` port. */
import type { EnqueueAnswer } from "@orrery/api/NodeRpcs"
import {
  ClusterUnavailable,
  type EditError,
  type EnqueueError,
  type InvalidRequest,
  NotRedrivable,
  RunNotFound,
  RunNotWaiting,
  type StoreUnavailable
} from "@orrery/core/Errors"
import type { ProgressStore } from "@orrery/core/ProgressStore"
import { inInbox, noCapableWorker, type Run } from "@orrery/core/Run"
import type { Edited, RunEdit } from "@orrery/core/RunEdit"
import { idsProblem, type RunHistory } from "@orrery/core/RunHistory"
import type { RunId } from "@orrery/core/RunId"
import { type RunProgress, shownNotes } from "@orrery/core/RunNotes"
import type { RunReader } from "@orrery/core/RunReader"
import type { RunRequest } from "@orrery/core/RunRequest"
import { isFinal } from "@orrery/core/RunState"
import { redriveOf } from "@orrery/core/deadLetter"
import { type CancelAnswer, listLimitMax, type Redriven, type RunFilter } from "@orrery/core/Runs"
import { versioned } from "@orrery/core/TaskName"
import { Duration, Effect, Fiber, Option, Schedule } from "effect"
import type { NotOwner } from "./ActorHost.js"
import type { QueueActor } from "./QueueActor.js"
import type { WorkerHub } from "./WorkerHub.js"

export type RowFailure = EnqueueAnswer["failures"][number]
export type SameRow = NonNullable<EnqueueAnswer["same"]>[number]

const unavailable = (operation: string) => (error: StoreUnavailable) =>
  new ClusterUnavailable({ operation, reason: error.message })

/** Which of the requests were not stored, and why; and for which of them other runs stand. */
export const enqueue = (
  actor: QueueActor,
  requests: ReadonlyArray<RunRequest>
): Effect.Effect<EnqueueAnswer, NotOwner> =>
  Effect.map(actor.enqueue(requests), (answers) => {
    const failures: Array<RowFailure> = []
    const same: Array<SameRow> = []
    answers.forEach((answer, index) => {
      if (answer === "stored") return
      if (answer._tag === "SameAs") same.push({ index, id: answer.id })
      else failures.push({ index, error: answer })
    })
    return same.length === 0 ? { failures } : { failures, same }
  })

/** With what the node knows of why it waits: workers attach to every node, so any node can tell. */
export const explained = (hub: WorkerHub, run: Run): Run => {
  if (run.state !== "ready" || run.waitsFor === inInbox) return run
  const task = versioned(run.task, run.version)
  if (hub.hasCapable(task)) return run
  return { ...run, waitsFor: run.version === undefined ? noCapableWorker : `${noCapableWorker}: ${task}` }
}

export const find = (
  reader: RunReader["Type"],
  id: RunId
): Effect.Effect<Run, RunNotFound | ClusterUnavailable> =>
  reader.find(id).pipe(
    Effect.mapError(unavailable("get")),
    Effect.flatMap((run) => run === undefined ? new RunNotFound({ runId: id }) : Effect.succeed(run))
  )

/** Between two looks for the owner to have taken a run out of the inbox: 5 ms doubling to 100 ms. */
const takenYet = Schedule.exponential("5 millis").pipe(Schedule.union(Schedule.spaced("100 millis")))

/** The run once its queue has it: in the inbox its partition is not known. `undefined`: it is there still after `waitMs`. */
export const findTaken = (
  reader: RunReader["Type"],
  id: RunId,
  waitMs: number
): Effect.Effect<Run | undefined, RunNotFound | ClusterUnavailable> =>
  find(reader, id).pipe(
    Effect.filterOrFail((run) => run.waitsFor !== inInbox, () => "in-inbox" as const),
    Effect.retry({
      schedule: takenYet.pipe(Schedule.upTo(waitMs)),
      while: (error) => error === "in-inbox"
    }),
    Effect.catchIf((error): error is "in-inbox" => error === "in-inbox", () => Effect.succeed(undefined))
  )

/** As `findTaken`; one that stays in the inbox for that long is a failure. */
export const findArrived = (
  reader: RunReader["Type"],
  operation: string,
  id: RunId,
  within: Duration.Duration
): Effect.Effect<Run, RunNotFound | ClusterUnavailable> =>
  Effect.flatMap(findTaken(reader, id, Duration.toMillis(within)), (run) =>
    run === undefined
      ? new ClusterUnavailable({ operation, reason: `${id} is still in the inbox` })
      : Effect.succeed(run))

export const list = (
  reader: RunReader["Type"],
  filter: RunFilter
): Effect.Effect<ReadonlyArray<Run>, ClusterUnavailable> =>
  Effect.mapError(reader.list({ ...filter, limit: Math.min(filter.limit, listLimitMax) }), unavailable("list"))

/** What a run has told while it ran. */
export const progress = (
  store: ProgressStore["Type"],
  id: RunId
): Effect.Effect<RunProgress | null, ClusterUnavailable> =>
  Effect.mapBoth(store.find([id]), {
    onFailure: unavailable("progress"),
    onSuccess: ([notes]) => notes === undefined ? null : shownNotes(notes)
  })

/** The request that makes a dead letter anew; read from the store that everybody reads. */
export const redriveRequest = (
  reader: RunReader["Type"],
  id: RunId,
  payload?: string
): Effect.Effect<RunRequest, RunNotFound | NotRedrivable | ClusterUnavailable> =>
  Effect.gen(function*() {
    const final = yield* Effect.mapError(reader.findFinal(id), unavailable("redrive"))
    if (final !== undefined) return yield* redriveOf(final, payload)
    const { state } = yield* find(reader, id)
    return yield* new NotRedrivable({ runId: id, state })
  })

/** Stores it, unless it is there. */
export const redrive = (
  reader: RunReader["Type"],
  actor: QueueActor,
  request: RunRequest
): Effect.Effect<Redriven, NotOwner | EnqueueError> =>
  Effect.gen(function*() {
    const before = yield* Effect.mapError(reader.find(request.id), unavailable("redrive"))
    const { failures: [failure] } = yield* enqueue(actor, [request])
    if (failure !== undefined) return yield* Effect.fail(failure.error)
    return { id: request.id, isNew: before === undefined }
  })

export const cancel = (
  reader: RunReader["Type"],
  actor: QueueActor,
  id: RunId
): Effect.Effect<CancelAnswer, NotOwner | RunNotFound | ClusterUnavailable> =>
  actor.cancel(id).pipe(
    Effect.mapError((error) => error === "not-owner" ? error : unavailable("cancel")(error)),
    Effect.flatMap((answer) =>
      answer !== undefined
        ? Effect.succeed(answer)
        // Not waiting and not running here: final, unless it was never here.
        : Effect.flatMap(
          find(reader, id),
          (run) => isFinal(run.state) ? Effect.succeed("already-final" as const) : Effect.fail("not-owner" as const)
        )
    )
  )

/** Changes a run that waits. */
export const edit = (
  reader: RunReader["Type"],
  actor: QueueActor,
  id: RunId,
  change: RunEdit
): Effect.Effect<Edited, NotOwner | EditError> =>
  Effect.gen(function*() {
    const edited = yield* Effect.catchTag(actor.desk.edit(id, change), "StoreUnavailable", unavailable("edit"))
    if (edited !== undefined) return edited
    const { state } = yield* find(reader, id)
    return yield* isFinal(state) ? new RunNotWaiting({ runId: id, state }) : Effect.fail("not-owner" as const)
  })

/** Deletes those that are final. */
export const deleteFinal = (
  history: RunHistory["Type"],
  ids: ReadonlyArray<RunId>
): Effect.Effect<number, InvalidRequest | ClusterUnavailable> => {
  const problem = idsProblem(ids)
  return problem === undefined ? Effect.mapError(history.delete(ids), unavailable("delete")) : Effect.fail(problem)
}

/** The run is in its memory: as far as it knows it has not ended, and its watchers will be told when it does. */
export const holds = (actor: QueueActor, id: RunId): boolean => actor.isOpen && actor.machine.find(id) !== undefined

/** An actor that holds the run, and says nothing of its end for this long, may be one of the past, ms: the row is looked at. */
const lookAfterMs = 2_000

/** The run once it is final, or `null` after `waitMs` or when the actor has ended. */
export const awaitFinal = (
  reader: RunReader["Type"],
  actor: QueueActor,
  id: RunId,
  waitMs: number
): Effect.Effect<Run | null, RunNotFound | ClusterUnavailable> =>
  Effect.gen(function*() {
    const ended = yield* Effect.async<void>((resume) => {
      const stop = actor.watch(id, () => resume(Effect.void))
      return Effect.sync(stop)
    }).pipe(Effect.timeoutOption(waitMs), Effect.fork)
    yield* Effect.yieldNow()
    // Watching first, then looking: an end between the two is not missed. Most runs that are held end soon, and need no look.
    const isSoon = holds(actor, id) && Option.isSome(yield* Effect.timeoutOption(Fiber.join(ended), lookAfterMs))
    if (!isSoon) {
      const before = yield* find(reader, id)
      if (isFinal(before.state)) return before
      yield* Fiber.join(ended)
    }
    const after = yield* find(reader, id)
    return isFinal(after.state) ? after : null
  }).pipe(Effect.scoped)
