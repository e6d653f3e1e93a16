/**
 * Owns the schedules of one partition: holds them in memory with the time each is next due, and is the only writer of
 * their rows (epoch fence).
 *
 * A tick is one commit: the schedule moved on, the record of the tick, and the run it promises. The run itself belongs to
 * the actor of its queue, the only writer there; it is handed over right after the commit, as often as it takes, under
 * an id derived from schedule and nominal time, which the queue makes a run of once. A crash between the two leaves the
 * promise in the table, and the next owner keeps it. So a tick is neither lost nor doubled (decision 0017).
 *
 * Everything is decided one after the other (`turn`); time is the database's.
 */
import type { StoreUnavailable } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import * as ScheduleDefinition from "@orrery/core/schedule/ScheduleDefinition"
import type { Schedule } from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import type { ScheduleCall, ScheduleError } from "@orrery/core/schedule/Schedules"
import type { Decisions, ScheduleState } from "@orrery/core/schedule/ScheduleState"
import { loadLimitMax, type Promised, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { TimerHeap } from "@orrery/core/schedule/TimerHeap"
import { Chunk, Deferred, Duration, Effect, Either, Queue, type Scope } from "effect"
import { DatabaseClock, driftMax } from "./DatabaseClock.js"
import type { Owner } from "./EpochCheck.js"
import {
  ask,
  type Asked,
  type Change,
  changeOf,
  commit,
  hear,
  hold,
  joined,
  noDecisions,
  type ScheduleActorEnd,
  type ScheduleBook,
  type ScheduleHost
} from "./ScheduleBook.js"
import { askFor, callsMax, operating } from "./ScheduleOperations.js"

export interface ScheduleActor extends Owner {
  readonly call: (call: ScheduleCall) => Effect.Effect<Schedule, ScheduleError>
  readonly ended: Effect.Effect<ScheduleActorEnd>
  readonly size: () => number
}

/** Schedules looked at, and written, in one commit. */
const dueMax = 500
/** Schedules decided on before others are let in: some milliseconds. */
const steppedMax = 50
/** Runs handed over in one call. */
const deliveredMax = 500
/** Longest sleep: so late a step of the database's clock is noticed when nothing is written meanwhile. */
const sleepMsMax = 600_000
/** Before a tick that is far off the clock is asked anew this much ahead, and by what it may be behind by then. */
const askAheadMs = 1_000
/** How often runs are looked after that something waits for. */
const watchEvery = "250 millis"
const pauseWhenNotActing = "100 millis"
const deliverRetry = "200 millis"
/** Takes the partition over and runs until the scope closes, or until `ended` says why it could not go on. */
export const make = Effect.fn("ScheduleActor.make")(function*(
  partition: number,
  host: ScheduleHost
): Effect.fn.Return<ScheduleActor, StoreUnavailable, ScheduleStore | Runs | Scope.Scope> {
  const store = yield* ScheduleStore
  const { epoch, now } = yield* store.takeOver(partition, host.nodeId)
  const self: ScheduleBook = {
    partition,
    epoch,
    host,
    store,
    runs: yield* Runs,
    clock: new DatabaseClock(host.monotonic, host.isExact === true ? 0 : driftMax),
    held: new Map(),
    timers: new TimerHeap(),
    watched: new Set(),
    promised: new Map(),
    kept: new Set(),
    wakes: yield* Queue.sliding<void>(1),
    deliveries: yield* Queue.sliding<void>(1),
    watches: yield* Queue.sliding<void>(1),
    // A cancellation that finds it full is asked for again when the schedule is next loaded.
    cancels: yield* Queue.dropping<RunId>(10_000),
    calls: yield* Queue.bounded<Asked>(callsMax),
    ended: yield* Deferred.make<ScheduleActorEnd>(),
    turn: yield* Effect.makeSemaphore(1),
    heardAt: 0,
    commits: 0
  }
  hear(self, now)
  yield* load(self)
  for (const loop of [ticking(self), delivering(self), watching(self), cancelling(self), operating(self)]) {
    yield* Effect.forkScoped(loop)
  }
  return {
    call: (call) => askFor(self, call),
    ended: Deferred.await(self.ended),
    size: () => self.held.size,
    partitionId: partition,
    epoch,
    isOpen: true,
    hasAttemptsOut: false,
    get commits() {
      return self.commits
    },
    replaced: () => Deferred.unsafeDone(self.ended, Effect.succeed("fenced"))
  }
})

const load = Effect.fnUntraced(function*(self: ScheduleBook) {
  for (let after = "";;) {
    const page = yield* self.store.load(self.partition, after)
    for (const schedule of page) {
      const fires = ScheduleDefinition.check(schedule.definition)
      const id = ScheduleDefinition.idOf(schedule.definition)
      if (Either.isLeft(fires)) yield* Effect.logError(`schedule ${id} cannot be run: ${fires.left.message}`)
      else hold(self, { schedule, fires: fires.right })
      after = id
      // Asked for before, perhaps, by an owner that is gone.
      const { buffer, open, policy } = schedule.state
      if (policy.overlap === "cancelOther" && buffer.length > 0) yield* self.cancels.offerAll(open)
    }
    if (page.length < loadLimitMax) break
  }
  for (let after: RunId | undefined = undefined;;) {
    const page: ReadonlyArray<Promised> = yield* self.store.loadPromised(self.partition, after)
    for (const each of page) self.promised.set(each.runId, { ...each, resend: true })
    if (page.length < loadLimitMax) break
    after = page.at(-1)!.runId
  }
  self.deliveries.unsafeOffer(undefined)
})

/** First what is known of the ends of runs, then what is due. */
const afterEnds = Effect.fnUntraced(function*(self: ScheduleBook, ids: Iterable<string>) {
  const changed = new Map<string, Change>()
  const open = new Map<RunId, string>()
  for (const id of ids) {
    for (const run of self.held.get(id)?.schedule.state.open ?? []) {
      // Not handed over yet: it cannot be over.
      if (!self.promised.has(run) && open.size < loadLimitMax) open.set(run, id)
    }
  }
  if (open.size === 0) return changed
  for (const { isFailure, runId } of yield* self.store.ended([...open.keys()])) {
    const id = open.get(runId)!
    const before = changed.get(id) ?? { ...self.held.get(id)!, decisions: noDecisions }
    const step = ScheduleMachine.finished(before.schedule.state, before.fires, { runId, isFailure }, self.clock.now())
    changed.set(id, joined(before, step))
  }
  return changed
})

/** Lets in what else the process has to do. */
const breath = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** Decides on what is due. Thousands can be at one instant: a few at a time, whichever partition they are of. */
const stepping = (self: ScheduleBook, due: ReadonlyArray<string>, changed: Map<string, Change>) =>
  Effect.forEach(
    Chunk.chunksOf(Chunk.unsafeFromArray(due), steppedMax),
    (ids, index) =>
      self.host.pace.withPermits(1)(Effect.zipRight(
        index === 0 ? Effect.void : breath,
        Effect.sync(() => {
          for (const id of ids) {
            const before = changed.get(id) ?? { ...self.held.get(id)!, decisions: noDecisions }
            changed.set(id, joined(before, ScheduleMachine.step(before.schedule.state, before.fires, self.clock.now())))
          }
        })
      )),
    { discard: true }
  )

/** Does what is due. */
const turn = Effect.fnUntraced(function*(self: ScheduleBook) {
  const due = self.timers.take(self.clock.now(), dueMax)
  // Whatever happens, they are due until it is written that they are not.
  yield* afterEnds(self, due).pipe(
    Effect.tap((changed) => stepping(self, due, changed)),
    Effect.flatMap((changed) => due.length === 0 ? Effect.void : commit(self, [...changed.values()])),
    Effect.onError(() =>
      Effect.sync(() => {
        for (const id of due) self.timers.set(id, ScheduleMachine.nextTimer(self.held.get(id)!.schedule.state))
      })
    )
  )
})

const ticking = (self: ScheduleBook) =>
  Effect.gen(function*() {
    if (!self.host.mayAct()) return yield* Effect.sleep(pauseWhenNotActing)
    const next = self.timers.peek()
    if (next === undefined) return yield* Queue.take(self.wakes)
    const wait = next - self.clock.now()
    if (self.host.isExact === true && wait > 0) {
      return yield* Effect.timeoutOption(Queue.take(self.wakes), Duration.millis(wait))
    }
    const ahead = askAheadMs + 2 * driftMax * (self.host.monotonic() - self.heardAt)
    if (wait > 0 && self.clock.isStale && wait <= ahead) yield* ask(self)
    else if (wait > 0) {
      const ms = wait > ahead ? Math.max(1, wait - ahead) : Math.ceil(wait) + 1
      yield* Effect.timeoutOption(Queue.take(self.wakes), Duration.millis(Math.min(ms, sleepMsMax)))
    } else yield* self.turn.withPermits(1)(turn(self))
  }).pipe(
    Effect.catchAll((error) => Effect.zipRight(Effect.logWarning(error.message), Effect.sleep(deliverRetry))),
    Effect.forever,
    Effect.annotateLogs({ module: "ScheduleActor", partition: self.partition })
  )

/** Looks after runs on whose end something waits that no tick will look for. */
const watching = (self: ScheduleBook) =>
  Effect.gen(function*() {
    if (self.watched.size === 0) return yield* Queue.take(self.watches)
    yield* Effect.sleep(watchEvery)
    if (!self.host.mayAct()) return
    yield* self.turn.withPermits(1)(Effect.gen(function*() {
      const ended = yield* afterEnds(self, self.watched)
      if (ended.size > 0) yield* commit(self, [...ended.values()])
    }))
  }).pipe(
    Effect.catchAll((error) => Effect.logWarning(error.message)),
    Effect.forever,
    Effect.annotateLogs({ module: "ScheduleActor", partition: self.partition })
  )

/** Hands promised runs to their queues, and strikes the promises out with the next commit. */
const delivering = (self: ScheduleBook) =>
  Effect.gen(function*() {
    if (self.promised.size === 0) {
      // What nothing else is written with is struck out by a commit of its own.
      if (self.kept.size > 0) yield* self.turn.withPermits(1)(commit(self, []))
      return yield* Queue.take(self.deliveries)
    }
    const batch = [...self.promised.values()].slice(0, deliveredMax)
    const requests = batch.flatMap((each) => {
      const held = self.held.get(each.scheduleId)
      return held === undefined ? [] : [ScheduleDefinition.requestOf(held.schedule.definition, each, each.resend)]
    })
    for (const each of batch) each.resend = true
    yield* self.runs.enqueueMany(requests).pipe(
      Effect.catchIf(isRefusal, () => oneByOne(self, requests))
    )
    for (const { runId } of batch) {
      self.promised.delete(runId)
      self.kept.add(runId)
    }
  }).pipe(
    Effect.catchAll((error) =>
      Effect.zipRight(Effect.logWarning(`runs of schedules wait: ${error.message}`), Effect.sleep(deliverRetry))
    ),
    Effect.forever,
    Effect.annotateLogs({ module: "ScheduleActor", partition: self.partition })
  )

type EnqueueError = Effect.Effect.Error<ReturnType<Runs["Type"]["enqueueMany"]>>

/** Asked again later, however long that is. */
type Temporary = "ClusterUnavailable" | "Overloaded" | "QueueFull" | "QuotaExceeded"
const temporary: ReadonlySet<string> = new Set<Temporary>([
  "ClusterUnavailable",
  "Overloaded",
  "QueueFull",
  "QuotaExceeded"
])

const isRefusal = (
  error: EnqueueError
): error is Exclude<EnqueueError, { _tag: Temporary }> => !temporary.has(error._tag)

/** One of them is refused for good: the others must not wait for it. */
const oneByOne = (self: ScheduleBook, requests: Parameters<Runs["Type"]["enqueueMany"]>[0]) =>
  Effect.forEach(requests, (request) =>
    self.runs.enqueueMany([{ ...request, resend: true }]).pipe(
      Effect.catchIf(isRefusal, (error) => refused(self, request.id, error.message))
    ), { discard: true })

/** Checked when the schedule was made; limits may have been lowered since. It is said, and recorded. */
const refused = (self: ScheduleBook, runId: RunId, message: string) =>
  self.turn.withPermits(1)(Effect.gen(function*() {
    const promise = self.promised.get(runId)
    const held = promise === undefined ? undefined : self.held.get(promise.scheduleId)
    if (promise === undefined || held === undefined) return
    yield* Effect.logError(`a run of schedule ${promise.scheduleId} was refused: ${message}`)
    const record = { first: promise.nominal, last: promise.nominal, count: 1, runId: null } as const
    const { state } = held.schedule
    const without: ScheduleState = {
      ...state,
      missed: state.missed + 1,
      open: state.open.filter((each) => each !== runId)
    }
    const decisions: Decisions = { ...noDecisions, records: [{ ...record, outcome: "missed", reason: "refused" }] }
    yield* commit(self, [changeOf(held, { state: without, decisions })])
  }))

/** Asks for cancellations, which end as runs do. What cannot be reached is asked again when the actor is made anew. */
const cancelling = (self: ScheduleBook) =>
  Queue.take(self.cancels).pipe(
    Effect.flatMap((id) => self.runs.cancel(id)),
    Effect.catchAll((error) => Effect.logWarning(`a run could not be cancelled: ${error.message}`)),
    Effect.forever
  )
