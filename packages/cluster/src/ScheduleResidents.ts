/**
 * The schedule actors that live in this process, from take-over to end. One that ends by itself (fenced, or a database out of
 * reach for long) is made anew as long as its place is here.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { listBytesMax, type Runs } from "@orrery/core/Runs"
import type { Schedule } from "@orrery/core/schedule/ScheduleDefinition"
import {
  type ScheduleCall,
  type ScheduleError,
  ScheduleNotFound,
  type Schedules
} from "@orrery/core/schedule/Schedules"
import { listLimitMax, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { Duration, Effect, Schedule as Recurrence, type Scope } from "effect"
import * as EpochCheck from "./EpochCheck.js"
import * as ScheduleActor from "./ScheduleActor.js"
import type { ScheduleHost } from "./ScheduleBook.js"

/** After a take-over that failed: 50 ms doubling to 1 s. */
const takeOverRetry = Recurrence.exponential("50 millis").pipe(Recurrence.union(Recurrence.spaced("1 second")))
/** Pause before an actor that ended by itself takes over again. */
const restartPause = "100 millis"
/** Longest wait of a call for an actor that is being made. */
const actorWait = Duration.seconds(5)
/** Ticks are kept for so long. */
const ticksKept = Duration.days(30)
const pruneEvery = "1 hour"

export interface ScheduleResidents {
  /** Runs the actor of a partition until the scope closes. `mayOwn` is asked before each take-over. */
  readonly host: (partition: number, mayOwn: () => boolean) => Effect.Effect<void, never, Scope.Scope>
  readonly has: (partition: number) => boolean
  readonly call: (partition: number, call: ScheduleCall) => Effect.Effect<Schedule, ScheduleError>
}

export interface ScheduleResidentsOptions extends Omit<ScheduleHost, "pace"> {
  /** There are other nodes, so that its actors may be replaced unnoticed (`EpochCheck`). Left out: there are never any. */
  readonly hasOthers?: () => boolean
}

export const make = Effect.fnUntraced(function*(
  options: ScheduleResidentsOptions
): Effect.fn.Return<ScheduleResidents, never, ScheduleStore | Runs | Scope.Scope> {
  const store = yield* ScheduleStore
  const context = yield* Effect.context<ScheduleStore | Runs>()
  const actors = new Map<number, ScheduleActor.ScheduleActor>()
  const waiting = new Set<() => void>()
  const host: ScheduleHost = { ...options, pace: yield* Effect.makeSemaphore(1) }

  /** Waits for an actor that is being made. */
  const actorOf = (partition: number): Effect.Effect<ScheduleActor.ScheduleActor, ClusterUnavailable> =>
    Effect.async<ScheduleActor.ScheduleActor>((resume) => {
      const look = () => {
        const actor = actors.get(partition)
        if (actor === undefined) return
        waiting.delete(look)
        resume(Effect.succeed(actor))
      }
      waiting.add(look)
      look()
      return Effect.sync(() => waiting.delete(look))
    }).pipe(
      Effect.timeoutFail({
        duration: actorWait,
        onTimeout: () =>
          new ClusterUnavailable({ operation: "schedules", reason: `partition ${partition} could not be taken over` })
      })
    )

  const { hasOthers } = options
  if (hasOthers !== undefined) yield* EpochCheck.run(store, () => hasOthers() ? actors.values() : [])

  const residency = (partition: number, mayOwn: () => boolean) =>
    Effect.gen(function*() {
      const actor = yield* ScheduleActor.make(partition, host).pipe(
        Effect.tapError((error) => Effect.logWarning(`cannot take schedules over: ${error.message}`)),
        Effect.retry({ schedule: takeOverRetry, while: mayOwn })
      )
      yield* Effect.acquireUseRelease(
        Effect.sync(() => {
          actors.set(partition, actor)
          for (const look of [...waiting]) look()
        }),
        () => Effect.flatMap(actor.ended, (reason) => Effect.logInfo(`schedule actor ended: ${reason}`)),
        () => Effect.sync(() => actors.delete(partition))
      )
    }).pipe(Effect.scoped, Effect.provide(context))

  return {
    has: (partition) => actors.has(partition),
    host: (partition, mayOwn) => {
      const may = () => mayOwn() && options.mayAct()
      return Effect.suspend(() => (may() ? residency(partition, may) : Effect.void)).pipe(
        Effect.catchTag("StoreUnavailable", () => Effect.void),
        Effect.catchAllCause((cause) => Effect.logError("schedule actor failed", cause)),
        Effect.zipRight(Effect.sleep(restartPause)),
        Effect.forever,
        Effect.annotateLogs({ module: "ScheduleResidents", partition }),
        Effect.forkScoped,
        Effect.asVoid
      )
    },
    call: (partition, call) => Effect.flatMap(actorOf(partition), (actor) => actor.call(call))
  }
})

/** The reading half of the port, which needs no owner. */
export const reading = (store: ScheduleStore["Type"]): Pick<Schedules["Type"], "get" | "list" | "ticks"> => {
  const outOfReach = (error: { readonly message: string }) =>
    new ClusterUnavailable({ operation: "reading schedules", reason: error.message })
  return {
    get: (id) =>
      Effect.flatMap(
        Effect.mapError(store.find(id), outOfReach),
        (found) => found === undefined ? new ScheduleNotFound({ schedule: id }) : Effect.succeed(found)
      ),
    list: (filter) =>
      store.list({ ...filter, limit: Math.min(filter.limit, listLimitMax) }).pipe(
        Effect.map(fittingIntoMessage),
        Effect.mapError(outOfReach)
      ),
    ticks: (id, limit) => Effect.mapError(store.ticks(id, Math.min(limit, listLimitMax)), outOfReach)
  }
}

/** As `Runs.list`: 8 MiB end a page, but it has at least one. */
const fittingIntoMessage = (page: ReadonlyArray<Schedule>): ReadonlyArray<Schedule> => {
  let left = listBytesMax
  return page.filter((schedule, index) => {
    left -= JSON.stringify(schedule).length
    return index === 0 || left >= 0
  })
}

/** Forgets old ticks. Any number of processes may do it. */
export const pruning = (store: ScheduleStore["Type"]): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const now = yield* store.now
    yield* Effect.repeat(store.pruneTicks(now - Duration.toMillis(ticksKept)), { until: (gone) => gone === 0 })
  }).pipe(
    Effect.catchAll((error) => Effect.logWarning(`old ticks of schedules were not forgotten: ${error.message}`)),
    Effect.zipRight(Effect.sleep(pruneEvery)),
    Effect.forever,
    Effect.forkScoped,
    Effect.asVoid
  )
