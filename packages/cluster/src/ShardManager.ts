/**
 * Who owns what: @effect/cluster's Sharding over PostgreSQL, with settings measured to fail over in about a second, and
 * with storage for membership and locks only. No message is ever stored.
 */
import {
  MessageStorage,
  RunnerAddress,
  RunnerHealth,
  type Sharding,
  ShardingConfig,
  SocketRunner
} from "@effect/cluster"
import { NodeClusterSocket } from "@effect/platform-node"
import { RpcSerialization } from "@effect/rpc"
import type { SocketServer } from "@effect/platform"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import type { NodeConfig } from "@orrery/core/NodeConfig"
import { Duration, Effect, Layer, Option } from "effect"
import type { DatabaseMemory } from "./DatabaseMemory.js"
import * as LockPool from "./LockPool.js"
import * as LockStorage from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { shardGroup } from "./QueueEntity.js"

/** Control messages are small; more is an attack or a mistake. */
const controlBytesMax = 1024 * 1024
/** An entity flushes what it has decided before its shard goes; see `QueueActor.close`. */
const entityTerminationTimeout = Duration.seconds(6)

/** A request for a shard that is on its way from one node to another. */
const sendRetryInterval = Duration.millis(50)

/**
 * The library's interval of polls for stored messages, of which there are none. It is also how long Sharding goes on without a look
 * at its shards when nothing has told it to look: after a failed try for locks, and where a shard was assigned back to the node
 * that was just letting go of it. Ten seconds by default, for which nobody would serve its queues; more often, and an idle node is
 * woken more often.
 */
const lookInterval = Duration.seconds(1)

const config = Layer.unwrapEffect(
  Effect.gen(function*() {
    const cluster = yield* ClusterConfig
    const self = yield* NodeIdentity
    return ShardingConfig.layer({
      runnerAddress: Option.some(RunnerAddress.make(self.host, self.runnerPort)),
      runnerListenAddress: Option.some(RunnerAddress.make(self.host, self.runnerPort)),
      availableShardGroups: [shardGroup],
      assignedShardGroups: [shardGroup],
      shardsPerGroup: cluster.shardsPerGroup,
      shardLockRefreshInterval: Duration.millis(cluster.lockRefreshMs),
      shardLockExpiration: Duration.millis(cluster.lockExpirationMs),
      refreshAssignmentsInterval: Duration.millis(cluster.assignmentPollMs - LockStorage.pollWaitMs(cluster)),
      sendRetryInterval,
      entityMessagePollInterval: lookInterval,
      entityTerminationTimeout,
      simulateRemoteSerialization: false
    })
  })
)

/**
 * The library's own health check runs on one node, and again on another whenever that changes. Here every node watches
 * its peers (PeerWatch), so it must not judge: it would declare a frozen node healthy again.
 */
const noHealthCheck = Layer.succeed(RunnerHealth.RunnerHealth, { isAlive: () => Effect.never })

/** Also provides what the node watches of the membership. */
export const layer: Layer.Layer<
  Sharding.Sharding | LockStorage.LockStorage,
  SocketServer.SocketServerError,
  ClusterConfig | NodeConfig | NodeIdentity | DatabaseMemory
> = SocketRunner.layer.pipe(
  Layer.provide([NodeClusterSocket.layerSocketServer, NodeClusterSocket.layerClientProtocol]),
  Layer.provide([noHealthCheck, MessageStorage.layerNoop]),
  Layer.provideMerge(LockStorage.layer),
  Layer.provide(LockPool.layer),
  Layer.provide(config),
  Layer.provide(RpcSerialization.layerMsgPackWith({ maxBufferSize: controlBytesMax }))
)
