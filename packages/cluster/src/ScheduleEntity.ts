/**
 * The cluster's side of the schedule actors: one entity per partition, kept awake on whatever node has its shard. Calls
 * are entity messages: they are few.
 */
import { ClusterSchema, Entity, Sharding } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { ClusterUnavailable } from "@orrery/core/Errors"
import { idOf, Schedule } from "@orrery/core/schedule/ScheduleDefinition"
import { ScheduleCall, ScheduleError, Schedules } from "@orrery/core/schedule/Schedules"
import { partitionCount, partitionOf, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { Context, Duration, Effect, Layer, Queue, Schedule as Recurrence } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { shardGroup } from "./QueueEntity.js"
import * as ScheduleResidents from "./ScheduleResidents.js"
import { SelfWatch } from "./SelfWatch.js"

export const ScheduleEntity = Entity.make("Schedules", [
  /** Activates the actor. */
  Rpc.make("Wake"),
  Rpc.make("Call", { payload: { call: ScheduleCall }, success: Schedule, error: ScheduleError })
]).annotate(ClusterSchema.ShardGroup, () => shardGroup).annotateRpcs(ClusterSchema.ClientTracingEnabled, false)

/** The actors of this node, for the entities and for looking. */
class Residents extends Context.Tag("@orrery/cluster/ScheduleResidents")<
  Residents,
  ScheduleResidents.ScheduleResidents
>() {}

/** Calls to one partition at once. */
const callsMax = 256
/** How often a node looks whether the partitions of its shards are awake, when nothing tells it to. */
const sweepEvery = "5 seconds"
const wakeTimeout = "3 seconds"
/** A call finds its owner anew while there is none: 20 ms doubling to 250 ms, for 15 s. */
const callRetry = Recurrence.exponential("20 millis").pipe(
  Recurrence.union(Recurrence.spaced("250 millis")),
  Recurrence.upTo("15 seconds")
)
const callTimeout = "10 seconds"

const ResidentsLive = Layer.scoped(
  Residents,
  Effect.gen(function*() {
    const { nodeId } = yield* NodeIdentity
    const { mayAct } = yield* SelfWatch
    const { hasOthers } = yield* LockStorage
    return yield* ScheduleResidents.make({ nodeId, mayAct, hasOthers, monotonic: () => performance.now() })
  })
)

const Entities = ScheduleEntity.toLayer(
  Effect.gen(function*() {
    const { entityId } = yield* Entity.CurrentAddress
    const residents = yield* Residents
    const locks = yield* LockStorage
    const sharding = yield* Sharding.Sharding
    const partition = Number(entityId)
    const shard = sharding.getShardId(entityId, shardGroup)
    yield* residents.host(partition, () => sharding.hasShardId(shard) && locks.holds(shard))
    return {
      Wake: () => Effect.void,
      Call: ({ payload }) => residents.call(partition, payload.call)
    }
  }),
  // There are few, and they always have something to wait for.
  { maxIdleTime: Duration.infinity, concurrency: callsMax, disableFatalDefects: true }
)

/** The partitions of this node's shards are awake without anyone calling them. */
const Awake = Layer.scopedDiscard(
  Effect.gen(function*() {
    const sharding = yield* Sharding.Sharding
    const residents = yield* Residents
    const locks = yield* LockStorage
    const client = yield* ScheduleEntity.client
    const hints = yield* Queue.sliding<void>(1)
    const stop = locks.onAcquired(() => void hints.unsafeOffer(undefined))
    yield* Effect.addFinalizer(() => Effect.sync(stop))
    const partitions = Array.from({ length: partitionCount }, (_, partition) => partition)
    const wake = Effect.suspend(() => {
      const own = partitions.filter((partition) =>
        !residents.has(partition)
        && sharding.hasShardId(sharding.getShardId(String(partition) as never, shardGroup))
      )
      return Effect.forEach(
        own,
        (partition) =>
          client(String(partition)).Wake().pipe(Effect.timeout(wakeTimeout), Effect.catchAllCause(() => Effect.void)),
        {
          concurrency: partitionCount,
          discard: true
        }
      )
    })
    yield* Queue.take(hints).pipe(
      Effect.timeoutOption(sweepEvery),
      // The shard counts as ours a moment after the lock was taken.
      Effect.zipRight(Effect.sleep("5 millis")),
      Effect.zipRight(wake),
      Effect.zipRight(Effect.sleep("100 millis")),
      Effect.zipRight(wake),
      Effect.forever,
      Effect.forkScoped
    )
    yield* ScheduleResidents.pruning(yield* ScheduleStore)
  })
)

const Port = Layer.effect(
  Schedules,
  Effect.gen(function*() {
    const client = yield* ScheduleEntity.client
    const store = yield* ScheduleStore
    const outOfReach = (reason: string) => new ClusterUnavailable({ operation: "schedules", reason })
    return Schedules.of({
      ...ScheduleResidents.reading(store),
      call: (call) =>
        client(String(partitionOf("definition" in call ? idOf(call.definition) : call.id))).Call({ call }).pipe(
          Effect.timeoutFail({ duration: callTimeout, onTimeout: () => outOfReach("its owner does not answer") }),
          Effect.catchTags({
            MailboxFull: () => outOfReach("its owner has as many calls as it may"),
            AlreadyProcessingMessage: () => outOfReach("the call is under way"),
            PersistenceError: () => outOfReach("the cluster's storage does not answer")
          }),
          Effect.retry({ schedule: callRetry, while: (error) => error._tag === "ClusterUnavailable" })
        )
    })
  })
)

export const layer = Layer.provideMerge(Port, Layer.provide(Layer.merge(Entities, Awake), ResidentsLive))
