/**
 * The cluster's side of a queue actor: where it lives, and what keeps it awake. Runs never travel through entity
 * messages (decision 0002); this is only how its owner is found and made to be.
 */
import { ClusterSchema, Entity, type Sharding, Sharding as ShardingService } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { InvalidRequest } from "@orrery/core/Errors"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import { Effect, Layer, Schema } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Residents } from "./Residents.js"
import * as Stays from "./Stays.js"

/** Named, so that the numbers of the locks never depend on a default. */
export const shardGroup = "default"

export const QueueEntity = Entity.make("Queue", [
  /** Activates the actor and tells where it is. */
  Rpc.make("Locate", { success: Schema.Struct({ nodeId: Schema.String, address: Schema.String }) }),
  /** Lasts as long as the actor has something to do: an entity with a request under way is not reaped. */
  Rpc.make("Stay")
]).annotate(ClusterSchema.ShardGroup, () => shardGroup).annotateRpcs(ClusterSchema.ClientTracingEnabled, false)

/** @effect/cluster keeps entity ids in 255 characters. */
const entityIdLengthMax = 255
export const entityIdProblem = (name: PartitionName): InvalidRequest | undefined => {
  const length = partitionKey(name).length
  return length <= entityIdLengthMax ? undefined : new InvalidRequest({
    field: "namespace and queue",
    limit: `at most ${entityIdLengthMax - 12} characters together`,
    actual: `${name.namespace.length + name.queue.length} characters`
  })
}

/** An idle entity goes this long after `Stay` has ended. */
const maxIdleTime = "5 seconds"
/** Calls to one entity at once: lookups, and one `Stay`. */
const callsMax = 1_024

const parse = (entityId: string): PartitionName => {
  const [namespace = "", queue = "", partition = "0"] = entityId.split("|")
  return { namespace, queue, partition: Number(partition) }
}

const entity = (whileNeeded: Stays.WhileNeeded) =>
  Effect.gen(function*() {
    const { entityId } = yield* Entity.CurrentAddress
    const residents = yield* Residents
    const self = yield* NodeIdentity
    const locks = yield* LockStorage
    const { passivateAfterMs } = yield* NodeConfig
    const sharding: Sharding.Sharding["Type"] = yield* ShardingService.Sharding
    const name = parse(entityId)
    const shard = sharding.getShardId(entityId, shardGroup)
    const client = (yield* QueueEntity.client)(entityId)
    yield* residents.host(name, () => sharding.hasShardId(shard) && locks.holds(shard), {
      isOpen: () => !sharding.hasShardId(shard) && locks.hasOthers(),
      callHeir: client.Locate()
    })

    let idleSince = performance.now()
    const isNeeded = () => {
      const actor = residents.find(name)
      if (actor !== undefined && !actor.isIdle) idleSince = performance.now()
      // A shard that is being handed over waits for the requests of its entities.
      if (!sharding.hasShardId(shard)) return false
      return performance.now() - idleSince < passivateAfterMs
    }
    yield* Effect.suspend(() => (isNeeded() ? client.Stay() : Effect.void)).pipe(
      Effect.catchAllCause(() => Effect.void),
      Effect.zipRight(Effect.sleep(Stays.idleCheck)),
      Effect.forever,
      Effect.forkScoped
    )
    return {
      Locate: () => Effect.succeed({ nodeId: self.nodeId, address: self.dataAddress }),
      // The queues of a node that leaves go together: the first one waits for its heir as long as the last one stays.
      Stay: () => whileNeeded(isNeeded)
    }
  })

export const layer = Layer.unwrapScoped(
  Effect.map(
    Effect.flatMap(LockStorage, Stays.make),
    (whileNeeded) =>
      QueueEntity.toLayer(entity(whileNeeded), { maxIdleTime, concurrency: callsMax, disableFatalDefects: true })
  )
)
