/** An owner at rest whose shard was lost and won back unnoticed. Over the memory store and the test clock. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { defaultPolicy } from "@orrery/core/RunRequest"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, TestClock } from "effect"
import * as Residents from "../src/Residents.js"

const name = { namespace: "default", queue: "q", partition: 0 }

describe("an owner at rest", () => {
  it.scoped("learns that another one has stored a run meanwhile, and takes over anew", () =>
    Effect.gen(function*() {
      const store = yield* PartitionStore
      const journal = yield* Journal
      const residents = yield* Residents.make({
        nodeId: "node",
        windowRunsMax: 100,
        windowBytesMax: 1e6,
        mayTakeOver: () => true
      })
      yield* residents.host(name, () => true)
      yield* Effect.yieldNow()
      const before = residents.find(name)
      assert.isDefined(before)

      const { epoch, now, partitionId } = yield* store.takeOver(name, "other")
      const run = {
        id: unsafeMakeRunId(1_700_000_000_000),
        seq: epoch * 2 ** 30 + 1,
        task: "t",
        priority: 5,
        createdAt: now,
        payload: "1",
        policy: JSON.stringify(defaultPolicy),
        keys: null,
        options: null,
        state: "ready" as const,
        scheduledAt: now,
        orderKey: now,
        attempt: 0,
        crashes: 0,
        lease: 0,
        worker: null,
        failure: null,
        startedAt: null
      }
      yield* journal.commit({ partitionId, epoch, inserts: [{ run, resend: false }], updates: [], finishes: [] })
      yield* TestClock.adjust("31 seconds")

      const after = residents.find(name)
      assert.isAbove(after?.epoch ?? 0, epoch)
      assert.isTrue(after!.machine.hasReadyAmong(new Set(["t"])))
      assert.isFalse(before.isOpen)
    }).pipe(Effect.provide(Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer()))))
})
