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
import { ClusterUnavailable, InvalidRequest, type StoreUnavailable } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import type { NextFire } from "@orrery/core/schedule/NextFire"
import * as ScheduleDefinition from "@orrery/core/schedule/ScheduleDefinition"
import type { Schedule, Tick } from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import {
  type ScheduleCall,
  type ScheduleError,
  ScheduleExists,
  ScheduleNotFound
} from "@orrery/core/schedule/Schedules"
import { type Decisions, RevisionConflict, type ScheduleState, type Step } from "@orrery/core/schedule/ScheduleState"
import { loadLimitMax, type Promised, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { TimerHeap } from "@orrery/core/schedule/TimerHeap"
import { Deferred, Duration, Effect, Either, Queue, Schedule as Recurrence, type Scope } from "effect"
import { DatabaseClock, driftMax } from "./DatabaseClock.js"

export interface ScheduleHost {
  readonly nodeId: string
  /** False: others may act in the place of this node by now. */
  readonly mayAct: () => boolean
  /** Milliseconds that only grow. */
  readonly monotonic: () => number
  /** `monotonic` is the store's own clock, and timers keep to it: nothing is early by it, so nothing need be late. */
  readonly isExact?: boolean
}

/** Why it has ended. */
export type ScheduleActorEnd = "fenced" | "store-unavailable"

export interface ScheduleActor {
  readonly call: (call: ScheduleCall) => Effect.Effect<Schedule, ScheduleError>
  readonly ended: Effect.Effect<ScheduleActorEnd>
  readonly size: () => number
}

/** Schedules looked at, and written, in one commit. */
const dueMax = 500
/** Runs handed over in one call. */
const deliveredMax = 500
/** Longest sleep: so late a step of the database's clock is noticed when nothing is written meanwhile. */
const sleepMsMax = 600_000
/** Before a tick that is far off the clock is asked anew this much ahead, and by what it may be behind by then. */
const askAheadMs = 1_000
/** How often runs are looked after that something waits for. */
const watchEvery = "250 millis"
const pauseWhenNotActing = "100 millis"
/** A commit is tried again, 50 ms doubling to 1 s, for 10 s; then all is loaded anew. */
const commitRetry = Recurrence.exponential("50 millis").pipe(
  Recurrence.union(Recurrence.spaced("1 second")),
  Recurrence.upTo("10 seconds")
)
const deliverRetry = "200 millis"
/** Steps in a row that one operation may need to catch up with what was due before it. */
const settleStepsMax = 10_000

interface Held {
  readonly schedule: Schedule
  readonly fires: NextFire
}

/** A schedule with what a step has decided on it. */
interface Change extends Held {
  readonly decisions: Decisions
}

interface Self {
  readonly partition: number
  readonly epoch: number
  readonly host: ScheduleHost
  readonly store: ScheduleStore["Type"]
  readonly runs: Runs["Type"]
  readonly clock: DatabaseClock
  readonly held: Map<string, Held>
  readonly timers: TimerHeap
  /** Ids of schedules with something that waits for the end of a run. */
  readonly watched: Set<string>
  readonly promised: Map<RunId, Promised & { resend: boolean }>
  /** Promises to be struck out with the next commit. */
  readonly kept: Set<RunId>
  readonly wakes: Queue.Queue<void>
  readonly deliveries: Queue.Queue<void>
  readonly watches: Queue.Queue<void>
  readonly cancels: Queue.Queue<RunId>
  readonly ended: Deferred.Deferred<ScheduleActorEnd>
  readonly turn: Effect.Semaphore
  /** When the database's clock was last heard of, by the monotonic one. */
  heardAt: number
}

const noDecisions: Decisions = { starts: [], cancels: [], records: [] }

/** Takes the partition over and runs until the scope closes, or until `ended` says why it could not go on. */
export const make = Effect.fn("ScheduleActor.make")(function*(
  partition: number,
  host: ScheduleHost
): Effect.fn.Return<ScheduleActor, StoreUnavailable, ScheduleStore | Runs | Scope.Scope> {
  const store = yield* ScheduleStore
  const { epoch, now } = yield* store.takeOver(partition, host.nodeId)
  const self: Self = {
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
    ended: yield* Deferred.make<ScheduleActorEnd>(),
    turn: yield* Effect.makeSemaphore(1),
    heardAt: 0
  }
  hear(self, now)
  yield* load(self)
  for (const loop of [ticking(self), delivering(self), watching(self), cancelling(self)]) {
    yield* Effect.forkScoped(loop)
  }
  return { call: (call) => handle(self, call), ended: Deferred.await(self.ended), size: () => self.held.size }
})

const hear = (self: Self, now: number): void => {
  self.clock.observe(now)
  self.heardAt = self.host.monotonic()
}

const load = Effect.fnUntraced(function*(self: Self) {
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

const hold = (self: Self, { fires, schedule }: Held): void => {
  const id = ScheduleDefinition.idOf(schedule.definition)
  const { state } = schedule
  self.held.set(id, { schedule, fires })
  self.timers.set(id, ScheduleMachine.nextTimer(state))
  const waits = state.buffer.length > 0 || state.policy.pauseOnFailure || fires.delayMs !== undefined
  if (waits && state.open.length > 0) {
    self.watched.add(id)
    self.watches.unsafeOffer(undefined)
  } else self.watched.delete(id)
}

const tickOf = (record: Decisions["records"][number], now: number): Tick => ({ ...record, at: now })

/** How late the last run of a step was, or what was known before. */
const latenessOf = ({ decisions, schedule }: Change, now: number): number | null => {
  const tick = decisions.records.findLast(({ reason }) => reason === "tick")
  return tick === undefined
    ? schedule.latenessMs
    : Math.max(0, now - tick.first - ScheduleMachine.jitterOf(schedule.state))
}

/** Makes changes durable and then acts on them. Called within a turn. */
const commit = Effect.fnUntraced(
  function*(self: Self, changes: ReadonlyArray<Change>, deleted: ReadonlyArray<string> = []) {
    const now = self.clock.now()
    const promised: Array<Promised> = []
    const ticks: Array<Tick & { readonly scheduleId: string }> = []
    const saved = changes.map((change) => ({ ...change.schedule, latenessMs: latenessOf(change, now) }))
    for (const { decisions, schedule } of changes) {
      const scheduleId = ScheduleDefinition.idOf(schedule.definition)
      for (const record of decisions.records) ticks.push({ scheduleId, ...tickOf(record, now) })
      for (const { at, nominal, runId } of decisions.starts) promised.push({ runId, scheduleId, nominal, at })
    }
    const kept = [...self.kept]
    const { epoch, partition } = self
    self.clock.observe(
      yield* self.store.commit({ partition, epoch, saved, deleted, ticks, promised, kept }).pipe(
        // The batch is idempotent, and nothing else is written meanwhile: its fate needs not be known.
        Effect.retry({ schedule: commitRetry, while: (error) => error._tag === "StoreUnavailable" }),
        Effect.tapError((error) =>
          Deferred.succeed(self.ended, error._tag === "Fenced" ? "fenced" : "store-unavailable")
        ),
        Effect.mapError((error) => new ClusterUnavailable({ operation: "schedules", reason: error.message }))
      )
    )
    for (const id of kept) self.kept.delete(id)
    changes.forEach(({ fires }, index) => hold(self, { schedule: saved[index]!, fires }))
    for (const each of promised) self.promised.set(each.runId, { ...each, resend: false })
    for (const id of deleted) forget(self, id)
    for (const { decisions } of changes) yield* self.cancels.offerAll(decisions.cancels)
    if (promised.length > 0) self.deliveries.unsafeOffer(undefined)
    self.wakes.unsafeOffer(undefined)
  }
)

const forget = (self: Self, id: string): void => {
  self.held.delete(id)
  self.timers.set(id, undefined)
  self.watched.delete(id)
}

const changeOf = (held: Held, step: Step): Change => ({
  fires: held.fires,
  schedule: { ...held.schedule, state: step.state },
  decisions: step.decisions
})

/** First what is known of the ends of runs, then what is due. */
const afterEnds = Effect.fnUntraced(function*(self: Self, ids: Iterable<string>) {
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

const joined = (before: Change, { decisions, state }: Step): Change => ({
  fires: before.fires,
  schedule: { ...before.schedule, state },
  decisions: {
    starts: [...before.decisions.starts, ...decisions.starts],
    cancels: [...before.decisions.cancels, ...decisions.cancels],
    records: [...before.decisions.records, ...decisions.records]
  }
})

const ask = (self: Self) => Effect.map(self.store.now, (now) => hear(self, now))

/** Does what is due. */
const turn = Effect.fnUntraced(function*(self: Self) {
  const due = self.timers.take(self.clock.now(), dueMax)
  // Whatever happens, they are due until it is written that they are not.
  yield* afterEnds(self, due).pipe(
    Effect.flatMap((ended) => {
      for (const id of due) {
        const before = ended.get(id) ?? { ...self.held.get(id)!, decisions: noDecisions }
        ended.set(id, joined(before, ScheduleMachine.step(before.schedule.state, before.fires, self.clock.now())))
      }
      return due.length === 0 ? Effect.void : commit(self, [...ended.values()])
    }),
    Effect.onError(() =>
      Effect.sync(() => {
        for (const id of due) self.timers.set(id, ScheduleMachine.nextTimer(self.held.get(id)!.schedule.state))
      })
    )
  )
})

const ticking = (self: Self) =>
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
const watching = (self: Self) =>
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
const delivering = (self: Self) =>
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

const isRefusal = (
  error: EnqueueError
): error is Exclude<EnqueueError, { _tag: "ClusterUnavailable" | "Overloaded" }> =>
  error._tag !== "ClusterUnavailable" && error._tag !== "Overloaded"

/** One of them is refused for good: the others must not wait for it. */
const oneByOne = (self: Self, requests: Parameters<Runs["Type"]["enqueueMany"]>[0]) =>
  Effect.forEach(requests, (request) =>
    self.runs.enqueueMany([{ ...request, resend: true }]).pipe(
      Effect.catchIf(isRefusal, (error) => refused(self, request.id, error.message))
    ), { discard: true })

/** Checked when the schedule was made; limits may have been lowered since. It is said, and recorded. */
const refused = (self: Self, runId: RunId, message: string) =>
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
const cancelling = (self: Self) =>
  Queue.take(self.cancels).pipe(
    Effect.flatMap((id) => self.runs.cancel(id)),
    Effect.catchAll((error) => Effect.logWarning(`a run could not be cancelled: ${error.message}`)),
    Effect.forever
  )

const handle = (self: Self, call: ScheduleCall): Effect.Effect<Schedule, ScheduleError> =>
  self.turn.withPermits(1)(operate(self, call)).pipe(
    Effect.catchTag(
      "StoreUnavailable",
      (error) => new ClusterUnavailable({ operation: "schedules", reason: error.message })
    )
  )

const operate = Effect.fnUntraced(function*(self: Self, call: ScheduleCall) {
  if (!self.host.mayAct()) return yield* unavailable("the node must not act now")
  if (self.clock.isStale) yield* ask(self)
  const id = "definition" in call ? ScheduleDefinition.idOf(call.definition) : call.id
  yield* settle(self, id)
  const held = self.held.get(id)
  if (call._tag === "create" || call._tag === "declare") return yield* define(self, call, held)
  if (held === undefined) return yield* new ScheduleNotFound({ schedule: id })
  const { schedule: { state } } = held
  if (call._tag === "update") {
    // Its own answer was lost: it has happened.
    const isDone = call.expected === state.revision - 1 && isSame(held.schedule.definition, call.definition)
    if (isDone) return held.schedule
    yield* checkRevision(state, call.expected)
    return yield* redefine(self, held, call.definition)
  }
  if (call._tag === "delete") {
    yield* checkRevision(state, call.expected)
    yield* commit(self, [], [id])
    return held.schedule
  }
  const step = yield* ScheduleMachine.apply(state, held.fires, call, self.clock.now(), call.expected)
  const change = changeOf(held, step)
  yield* commit(self, [change])
  return change.schedule
})

const unavailable = (reason: string) => new ClusterUnavailable({ operation: "schedules", reason })

const checkRevision = (state: ScheduleState, expected: number | undefined) =>
  expected === undefined || expected === state.revision
    ? Effect.void
    : new RevisionConflict({ schedule: state.id, expected, actual: state.revision })

/** An operation follows what was due before it. */
const settle = Effect.fnUntraced(function*(self: Self, id: string) {
  for (let steps = 0; steps < settleStepsMax; steps++) {
    const held = self.held.get(id)
    const now = self.clock.now()
    if (held === undefined || held.schedule.state.paused !== null) return
    if (!ScheduleMachine.isOwing(held.schedule.state, now)) return
    yield* commit(self, [changeOf(held, ScheduleMachine.step(held.schedule.state, held.fires, now))])
  }
})

const isSame = (a: ScheduleDefinition.ScheduleDefinition, b: ScheduleDefinition.ScheduleDefinition): boolean =>
  JSON.stringify(a) === JSON.stringify(b)

const define = Effect.fnUntraced(function*(
  self: Self,
  { _tag, definition }: Extract<ScheduleCall, { _tag: "create" | "declare" }>,
  held: Held | undefined
) {
  const id = ScheduleDefinition.idOf(definition)
  if (held !== undefined) {
    const { definition: known } = held.schedule
    if (isSame(known, definition)) return held.schedule
    if (_tag === "create" || known.version === null) return yield* new ScheduleExists({ schedule: id })
    if (definition.version === null || definition.version < known.version) return held.schedule
    if (definition.version > known.version) return yield* redefine(self, held, definition)
    const limit = `more than ${known.version} where the declaration differs`
    return yield* new InvalidRequest({ field: "version", limit, actual: String(definition.version) })
  }
  const fires = yield* ScheduleDefinition.check(definition)
  const now = self.clock.now()
  const state = ScheduleMachine.make({ id, ...termsOf(definition) }, fires, now)
  const schedule = { definition, state, createdAt: now, latenessMs: null }
  yield* commit(self, [{ schedule, fires, decisions: noDecisions }])
  return schedule
})

const termsOf = ({ policy, spec }: ScheduleDefinition.ScheduleDefinition) => ({
  policy,
  jitterMs: spec.jitterMs ?? 0,
  maxFires: spec.maxFires ?? null
})

const redefine = Effect.fnUntraced(function*(
  self: Self,
  held: Held,
  definition: ScheduleDefinition.ScheduleDefinition
) {
  const fires = yield* ScheduleDefinition.check(definition)
  const now = self.clock.now()
  // What passed during a pause is told by the spec it passed under.
  let settled: Change = { ...held, decisions: noDecisions }
  for (let steps = 0; steps < settleStepsMax && ScheduleMachine.isOwing(settled.schedule.state, now); steps++) {
    settled = joined(settled, ScheduleMachine.settlePause(settled.schedule.state, held.fires, now))
  }
  const state = ScheduleMachine.update(settled.schedule.state, termsOf(definition), fires, now)
  const schedule = { ...settled.schedule, definition, state }
  yield* commit(self, [{ schedule, fires, decisions: settled.decisions }])
  return schedule
})
