/**
 * What the owner of schedules holds of them in memory, and the one way anything of it is changed: a commit, after which memory
 * says the same as the rows.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import type { Runs } from "@orrery/core/Runs"
import type { NextFire } from "@orrery/core/schedule/NextFire"
import * as ScheduleDefinition from "@orrery/core/schedule/ScheduleDefinition"
import type { Schedule, Tick } from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import type { ScheduleCall, ScheduleError } from "@orrery/core/schedule/Schedules"
import type { Decisions, Step } from "@orrery/core/schedule/ScheduleState"
import type { Promised, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import type { TimerHeap } from "@orrery/core/schedule/TimerHeap"
import { Array as Arr, Deferred, Effect, type Queue, Schedule as Recurrence } from "effect"
import type { DatabaseClock } from "./DatabaseClock.js"

export interface ScheduleHost {
  readonly nodeId: string
  /** False: others may act in the place of this node by now. */
  readonly mayAct: () => boolean
  /** Milliseconds that only grow. */
  readonly monotonic: () => number
  /** `monotonic` is the store's own clock, and timers keep to it: nothing is early by it, so nothing need be late. */
  readonly isExact?: boolean
  /** Of all actors of the process: who decides on what is due. */
  readonly pace: Effect.Semaphore
}

/** Why it has ended. */
export type ScheduleActorEnd = "fenced" | "store-unavailable"

/** A commit is tried again, 50 ms doubling to 1 s, for 10 s; then all is loaded anew. */
const commitRetry = Recurrence.exponential("50 millis").pipe(
  Recurrence.union(Recurrence.spaced("1 second")),
  Recurrence.upTo("10 seconds")
)

export interface Held {
  readonly schedule: Schedule
  readonly fires: NextFire
}

/** A schedule with what a step has decided on it. */
export interface Change extends Held {
  readonly decisions: Decisions
}

/** An operation, and who waits for its answer. */
export interface Asked {
  readonly call: ScheduleCall
  readonly answer: Deferred.Deferred<Schedule, ScheduleError>
}

export interface ScheduleBook {
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
  readonly calls: Queue.Queue<Asked>
  readonly ended: Deferred.Deferred<ScheduleActorEnd>
  readonly turn: Effect.Semaphore
  /** When the database's clock was last heard of, by the monotonic one. */
  heardAt: number
  /** Begun. */
  commits: number
}

export const noDecisions: Decisions = { starts: [], cancels: [], records: [] }

export const hear = (self: ScheduleBook, now: number): void => {
  self.clock.observe(now)
  self.heardAt = self.host.monotonic()
}

export const ask = (self: ScheduleBook) => Effect.map(self.store.now, (now) => hear(self, now))

export const hold = (self: ScheduleBook, { fires, schedule }: Held): void => {
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
export const commit = Effect.fnUntraced(
  function*(self: ScheduleBook, changes: ReadonlyArray<Change>, deleted: ReadonlyArray<string> = []) {
    const now = self.clock.now()
    const promised: Array<Promised> = []
    const ticks: Array<Tick & { readonly scheduleId: string }> = []
    const next = changes.map((change) => ({ ...change.schedule, latenessMs: latenessOf(change, now) }))
    const isStepped = ({ definition }: Schedule) =>
      self.held.get(ScheduleDefinition.idOf(definition))?.schedule.definition === definition
    const [saved, stepped] = Arr.partition(next, isStepped)
    for (const { decisions, schedule } of changes) {
      const scheduleId = ScheduleDefinition.idOf(schedule.definition)
      for (const record of decisions.records) ticks.push({ scheduleId, ...tickOf(record, now) })
      for (const start of decisions.starts) promised.push({ ...start, scheduleId })
    }
    const kept = [...self.kept]
    const { epoch, partition } = self
    self.commits += 1
    self.clock.observe(
      yield* self.store.commit({ partition, epoch, saved, stepped, deleted, ticks, promised, kept }).pipe(
        // The batch is idempotent, and nothing else is written meanwhile: its fate needs not be known.
        Effect.retry({ schedule: commitRetry, while: (error) => error._tag === "StoreUnavailable" }),
        Effect.tapError((error) =>
          Deferred.succeed(self.ended, error._tag === "Fenced" ? "fenced" : "store-unavailable")
        ),
        Effect.mapError((error) => new ClusterUnavailable({ operation: "schedules", reason: error.message }))
      )
    )
    for (const id of kept) self.kept.delete(id)
    changes.forEach(({ fires }, index) => hold(self, { schedule: next[index]!, fires }))
    for (const each of promised) self.promised.set(each.runId, { ...each, resend: false })
    for (const id of deleted) forget(self, id)
    for (const { decisions } of changes) yield* self.cancels.offerAll(decisions.cancels)
    if (promised.length > 0) self.deliveries.unsafeOffer(undefined)
    self.wakes.unsafeOffer(undefined)
  }
)

const forget = (self: ScheduleBook, id: string): void => {
  self.held.delete(id)
  self.timers.set(id, undefined)
  self.watched.delete(id)
}

export const changeOf = (held: Held, step: Step): Change => ({
  fires: held.fires,
  schedule: { ...held.schedule, state: step.state },
  decisions: step.decisions
})

export const joined = (before: Change, { decisions, state }: Step): Change => ({
  fires: before.fires,
  schedule: { ...before.schedule, state },
  decisions: {
    starts: [...before.decisions.starts, ...decisions.starts],
    cancels: [...before.decisions.cancels, ...decisions.cancels],
    records: [...before.decisions.records, ...decisions.records]
  }
})
