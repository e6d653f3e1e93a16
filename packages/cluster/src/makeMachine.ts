/** The machine of a partition that has just been taken over. */
import { partitionKey, type PartitionName, type Takeover } from "@orrery/core/PartitionStore"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { type QueueRecord, type QueueRules, rulesOf } from "@orrery/core/QueueSettings"
import type { ActorHost } from "./ActorHost.js"

/** What the settings of its queue mean for one partition. */
export const rulesFor = (host: ActorHost, name: PartitionName, record: QueueRecord): QueueRules =>
  rulesOf(record.settings, name.partition, host.partitionsOf(name))

/** `wake`: it has been lent room, and has something to do. */
export const makeMachine = (host: ActorHost, name: PartitionName, taken: Takeover, wake: () => void): QueueMachine =>
  new QueueMachine(
    {
      partitionId: taken.partitionId,
      epoch: taken.epoch,
      agingStepMs: host.agingStepMs,
      maxCrashes: host.maxCrashes,
      retention: host.retention,
      rules: taken.settings === undefined ? undefined : rulesFor(host, name, taken.settings),
      window: { runsMax: host.windowRunsMax, bytesMax: host.windowBytesMax },
      lender: { limits: host.limits, partition: partitionKey(name), wake }
    },
    { ...taken, adoptUntil: taken.now + host.adoptionGraceMs }
  )
