/**
 * The queue actors that live on this node, from take-over to end.
 *
 * An actor is started by its entity (`QueueEntity`), in the entity's scope. When it ends by itself (fenced, or a commit
 * whose fate is unknown) it takes the partition over anew, as long as this node holds the shard and its locks are
 * fresh: a node that has been away must not fence off the rightful owner.
 */
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import type { Overloaded } from "@orrery/core/Errors"
import { failpoint } from "@orrery/core/Failpoint"
import { Journal } from "@orrery/core/Journal"
import * as LimitDesk from "@orrery/core/LimitDesk"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import { type LimitStore, SharedLimits } from "@orrery/core/LimitStore"
import * as MemoryLimitStore from "@orrery/core/MemoryLimitStore"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { partitionKey, type PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import { ProgressStore } from "@orrery/core/ProgressStore"
import { parse as parseRetention, type QueueRetention } from "@orrery/core/Retention"
import type { RunId } from "@orrery/core/RunId"
import { Signals } from "@orrery/core/Signals"
import { Context, Effect, FiberSet, Layer, Schedule, type Scope } from "effect"
import { ActorTurns } from "./ActorTurns.js"
import { makeAlarm } from "./Alarm.js"
import { ClusterLimits } from "./ClusterLimits.js"
import * as EpochCheck from "./EpochCheck.js"
import { DatabaseClock } from "./DatabaseClock.js"
import { DatabaseMemory } from "./DatabaseMemory.js"
import { HeapWatch } from "./HeapWatch.js"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import type { ActorHost } from "./ActorHost.js"
import * as HandOver from "./HandOver.js"
import { holds } from "./OwnedCalls.js"
import { QueueActor } from "./QueueActor.js"
import * as SettingsCheck from "./SettingsCheck.js"
import { SelfWatch } from "./SelfWatch.js"
import { WorkerHub } from "./WorkerHub.js"

export class Residents extends Context.Tag("@orrery/cluster/Residents")<Residents, {
  readonly hub: WorkerHub
  readonly find: (name: PartitionName) => QueueActor | undefined
  /** Waits for the actor to be there, at most `ms`. */
  readonly await: (name: PartitionName, ms: number) => Effect.Effect<QueueActor | undefined>
  /**
   * Runs the actor of a partition until the scope closes; `mayOwn` is asked before each take-over. With a `passage` that is
   * open when the scope closes, the actor is handed over (`HandOver`): then the scope closes as soon as all that it has
   * started is durable, and the actor ends when another owner has taken the partition over.
   */
  readonly host: (
    name: PartitionName,
    mayOwn: () => boolean,
    passage?: HandOver.Passage
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Calls back when an actor ended with work left. Answers how to stop. */
  readonly onOrphaned: (callback: () => void) => () => void
  /** Also those that are being handed over. */
  readonly list: () => ReadonlyArray<QueueActor>
  /** The actor that has the run in memory, where there are few enough to ask each. */
  readonly holding: (id: RunId) => QueueActor | undefined
}>() {}

/** More actors than this are not asked for a run one by one: the row tells where it is. */
const askedMax = 64

/** After a take-over that failed: 50 ms doubling to 1 s, for as long as the shard is ours. */
const takeOverRetry = Schedule.exponential("50 millis").pipe(Schedule.union(Schedule.spaced("1 second")))
/** Pause before an actor that ended by itself takes over again. */
const restartPause = "100 millis"
/** How often silent workers are looked for, as a share of the lease. */
const sweepsPerLease = 4

export interface ResidentsOptions {
  readonly nodeId: string
  readonly windowRunsMax: number
  readonly windowBytesMax: number
  /** False: others may act in the place of this node, so it must take nothing over. */
  readonly mayTakeOver: () => boolean
  /** The same of starting attempts. Left out: as `mayTakeOver`. */
  readonly mayAct?: () => boolean
  /**
   * Told of each take-over before it begins, and of its epoch. False: that one was given out before, so nothing may be
   * written under it.
   */
  readonly takingOver?: (partition: string) => (epoch: number) => boolean
  /** Time by which runs are due, where it is not the database's as the process carries it on: in tests. */
  readonly time?: { readonly clock: DatabaseClock; readonly makeAlarm: ActorHost["makeAlarm"] }
  /** As `MachineOptions.retention`. */
  readonly retention?: QueueRetention | undefined
  /** Why new runs are not taken now. */
  readonly overload?: () => Overloaded | undefined
  /** Of limits that span queues, where no `SharedLimits` are given. Left out: by the `LimitKeeper`, or here alone. */
  readonly limitStore?: LimitStore["Type"]
}

/** Permits outlive their owner by so many leases of workers: those who go on are its heir's by then, or have stopped. */
const permitLeases = 1.5

export const make = Effect.fn("Residents.make")(function*(options: ResidentsOptions) {
  const cluster = yield* ClusterConfig
  const journal = yield* Journal
  const store = yield* PartitionStore
  const progress = yield* ProgressStore
  const signals = yield* Signals
  const partitions = QueuePartitions.parse(cluster.queuePartitions) ?? new Map<string, number>()
  const clock = options.time?.clock ?? new DatabaseClock()
  /**
   * The entity that came last, by partition. A shard that leaves and comes back at once has its old entity still ending when the
   * new one begins: two that took the partition over from each other in turn would serve nobody.
   */
  const hosts = new Map<string, () => boolean>()
  const actors = new Map<string, QueueActor>()
  const waiting = new Map<string, Set<(actor: QueueActor) => void>>()
  const orphanCallbacks = new Set<() => void>()
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const hub = new WorkerHub({ leaseMs: cluster.leaseMs, lostGraceMs: cluster.lostWorkerGraceMs }, {
    monotonic: () => performance.now(),
    later: (ms, run) => void fork(Effect.delay(Effect.sync(run), ms))
  })

  /** Nothing has been heard of the database for a while: what time is it? Without an answer its last word counts. */
  const reckon = Effect.ignore(Effect.map(store.now, (now) => clock.observe(now)))
  const limitStore = (yield* SharedLimits) ?? options.limitStore ?? (yield* LimitKeeper.LimitKeeper)?.store
    ?? (yield* MemoryLimitStore.make)
  const limits = yield* LimitDesk.make({ store: limitStore, leaseMsMin: cluster.leaseMs * permitLeases })
  const host: ActorHost = {
    limits,
    journal,
    store,
    progress,
    clock,
    turns: new ActorTurns(),
    workers: {
      poolFor: (actor) => hub.poolFor(actor),
      assign: (worker, assignments) => hub.assign(worker, assignments),
      interrupt: (worker, attempts) => hub.interrupt(worker, attempts),
      freed: (workers) => hub.freed(workers),
      wanting: (actor, mayStart) => hub.wanting(actor, mayStart)
    },
    signals,
    mayAct: options.mayAct ?? options.mayTakeOver,
    overload: options.overload ?? (() => undefined),
    fork,
    makeAlarm: options.time?.makeAlarm ??
      ((ring) => makeAlarm(clock, () => clock.isStale ? void fork(Effect.tap(reckon, Effect.sync(ring))) : ring())),
    partitionsOf: (name) => QueuePartitions.countOf(partitions, name),
    agingStepMs: cluster.agingStepMs,
    maxCrashes: cluster.maxCrashes,
    retention: options.retention,
    adoptionGraceMs: cluster.adoptionGraceMs,
    lostWorkerGraceMs: cluster.lostWorkerGraceMs,
    payloadBytesMax: cluster.payloadBytesMax,
    windowRunsMax: options.windowRunsMax,
    windowBytesMax: options.windowBytesMax
  }

  yield* Effect.sync(() => hub.sweep()).pipe(
    Effect.delay(Math.ceil(cluster.leaseMs / sweepsPerLease)),
    Effect.forever,
    Effect.forkScoped
  )

  yield* EpochCheck.run(store, () => actors.values())
  yield* SettingsCheck.run(store, () => actors.values())

  const linger = HandOver.make(store, fork)

  const end = Effect.fnUntraced(function*(key: string, actor: QueueActor) {
    if (actors.get(key) === actor) actors.delete(key)
    const hadWork = !actor.isIdle
    yield* actor.close
    hub.unregister(actor)
    const ended = { partition: key, epoch: actor.epoch, reason: yield* actor.stopped }
    const tell = ended.reason === "closed" || actor.isRetiring ? Effect.logDebug : Effect.logInfo
    yield* Effect.annotateLogs(tell("queue actor ended"), ended)
    if (hadWork) { for (const callback of orphanCallbacks) callback() }
  })

  const residency = Effect.fnUntraced(function*(
    name: PartitionName,
    mayOwn: () => boolean,
    passage: HandOver.Passage | undefined
  ) {
    const key = partitionKey(name)
    const isNew = options.takingOver?.(key)
    const taken = yield* Effect.sync(() => failpoint("take-over.before-commit")).pipe(
      Effect.zipRight(store.takeOver(name, options.nodeId)),
      Effect.tap(() => Effect.sync(() => failpoint("take-over.after-commit"))),
      Effect.tapError((error) => Effect.logWarning(`cannot take ${key} over: ${error.message}`)),
      Effect.retry({ schedule: takeOverRetry, while: mayOwn })
    )
    if (isNew?.(taken.epoch) === false) return
    const actor = new QueueActor(name, taken, host)
    yield* Effect.acquireUseRelease(
      Effect.sync(() => {
        // One that is being handed over, to this node after all.
        actors.get(key)?.replaced()
        actors.set(key, actor)
        hub.register(actor)
        for (const found of waiting.get(key) ?? []) found(actor)
        waiting.delete(key)
        actor.schedule()
      }),
      () => actor.stopped,
      () =>
        Effect.gen(function*() {
          if (passage?.isOpen() !== true || !HandOver.isWanted(actor)) return yield* end(key, actor)
          yield* HandOver.retire(actor)
          fork(Effect.acquireUseRelease(Effect.void, () => linger(actor, passage), () => end(key, actor)))
        })
    )
  })

  return Residents.of({
    hub,
    find: (name) => {
      const actor = actors.get(partitionKey(name))
      return actor !== undefined && actor.isOpen ? actor : undefined
    },
    await: (name, ms) =>
      Effect.async<QueueActor>((resume) => {
        const key = partitionKey(name)
        const actor = actors.get(key)
        if (actor !== undefined && actor.isOpen) return resume(Effect.succeed(actor))
        const found = (each: QueueActor) => resume(Effect.succeed(each))
        let set = waiting.get(key)
        if (set === undefined) {
          set = new Set()
          waiting.set(key, set)
        }
        set.add(found)
        return Effect.sync(() => {
          set.delete(found)
          if (set.size === 0 && waiting.get(key) === set) waiting.delete(key)
        })
      }).pipe(Effect.timeoutOption(ms), Effect.map((found) => found._tag === "Some" ? found.value : undefined)),
    host: (name, mayOwn, passage) =>
      Effect.suspend(() => {
        const key = partitionKey(name)
        const isLatest = () => hosts.get(key) === mayOwn
        const may = () => isLatest() && mayOwn() && options.mayTakeOver()
        return may() ? residency(name, may, passage) : Effect.void
      }).pipe(
        // Told when it happened; a node that may no longer try has nothing to add.
        Effect.catchTag("StoreUnavailable", () => Effect.void),
        Effect.catchAllCause((cause) => Effect.logError("queue actor failed", cause)),
        Effect.zipRight(Effect.sleep(restartPause)),
        Effect.forever,
        Effect.annotateLogs({ module: "Residents", partition: partitionKey(name) }),
        Effect.forkScoped,
        Effect.zipLeft(Effect.acquireRelease(
          Effect.sync(() => hosts.set(partitionKey(name), mayOwn)),
          () => Effect.sync(() => hosts.get(partitionKey(name)) === mayOwn && hosts.delete(partitionKey(name)))
        )),
        Effect.asVoid
      ),
    onOrphaned: (callback) => {
      orphanCallbacks.add(callback)
      return () => {
        orphanCallbacks.delete(callback)
      }
    },
    list: () => [...actors.values()],
    holding: (id) => {
      if (actors.size > askedMax) return undefined
      for (const actor of actors.values()) if (holds(actor, id)) return actor
      return undefined
    }
  })
})

export const layer = Layer.scoped(
  Residents,
  Effect.gen(function*() {
    const { eventLoopLagMaxMs, retention, windowBytesMax, windowRunsMax } = yield* NodeConfig
    const { nodeId } = yield* NodeIdentity
    const locks = yield* LockStorage
    const { mayAct } = yield* SelfWatch
    const { overload } = yield* HeapWatch
    const { takingOver } = yield* DatabaseMemory
    // A partition is taken only on locks confirmed lately; what is owned is kept until others may have it.
    const mayTakeOver = () => mayAct() && locks.confirmedMsAgo() < eventLoopLagMaxMs
    const limitStore = yield* ClusterLimits
    yield* LimitKeeper.keptBy((yield* SharedLimits) ?? limitStore)
    return yield* make({
      nodeId,
      windowBytesMax,
      windowRunsMax,
      mayTakeOver,
      mayAct,
      takingOver,
      overload,
      retention: parseRetention(retention),
      limitStore
    })
  })
)
