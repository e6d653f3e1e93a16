/**
 * core's `Queues` on a member of a cluster. Any node may change the settings of any queue, as the store decides who was first.
 * Who owns its partitions is not looked for, as that would wake queues that rest: every node is told, once.
 */
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { PartitionStore } from "@orrery/core/PartitionStore"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import type { QueueRecord } from "@orrery/core/QueueSettings"
import { QueueSettingsStore } from "@orrery/core/QueueSettingsStore"
import * as Queues from "@orrery/core/Queues"
import { Effect, Layer } from "effect"
import { NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Peers } from "./Peers.js"
import { Residents } from "./Residents.js"
import * as SettingsCheck from "./SettingsCheck.js"

/** A node that does not answer by then finds out by itself (`SettingsCheck`). */
const tellTimeout = "1 second"

const make = Effect.gen(function*() {
  const residents = yield* Residents
  const directory = yield* NodeDirectory
  const self = yield* NodeIdentity
  const peers = yield* Peers
  const tellNode = (address: string, record: QueueRecord) =>
    Effect.flatMap(
      peers.connection(address),
      (connection) =>
        connection.call("settings changed", (client) => client.QueueSettingsChanged({ record }), tellTimeout)
    ).pipe(Effect.scoped, Effect.timeout(tellTimeout), Effect.sandbox, Effect.ignore)
  return yield* makeOn((record) =>
    Effect.sync(() => SettingsCheck.apply(residents.list(), record)).pipe(
      Effect.zipRight(
        Effect.forEach(
          directory.live().filter(({ nodeId }) => nodeId !== self.nodeId),
          ({ dataAddress }) => tellNode(dataAddress, record),
          { concurrency: 16, discard: true }
        )
      )
    )
  )
})

/** On the stores at hand. `tell` never fails. */
export const makeOn = (tell: (record: QueueRecord) => Effect.Effect<void>) =>
  Effect.gen(function*() {
    const store = yield* QueueSettingsStore
    const { now } = yield* PartitionStore
    const partitions = QueuePartitions.parse((yield* ClusterConfig).queuePartitions) ?? new Map<string, number>()
    return Queues.make({ store, now, tell, partitionsOf: (name) => QueuePartitions.countOf(partitions, name) })
  })

export const layer = Layer.effect(Queues.Queues, make)
