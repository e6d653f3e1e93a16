/** An owner at rest whose shard was lost and won back unnoticed. Over the memory store and the test clock. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { numbersPerEpoch } from "@orrery/core/Numbers"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { batchOf, sampleRun } from "@orrery/testing/storeSamples"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, TestClock } from "effect"
import { makeResidents, name } from "./actorRig.js"

describe("an owner at rest", () => {
  it.scoped("learns that another one has stored a run meanwhile, and takes over anew", () =>
    Effect.gen(function*() {
      const store = yield* PartitionStore
      const journal = yield* Journal
      const residents = yield* makeResidents()
      yield* residents.host(name, () => true)
      yield* Effect.yieldNow()
      const before = residents.find(name)
      assert.isDefined(before)

      const other = yield* store.takeOver(name, "other")
      const run = yield* sampleRun({ seq: other.epoch * numbersPerEpoch + 1 })
      yield* journal.commit(batchOf(other, { inserts: [run] }))
      yield* TestClock.adjust("31 seconds")

      const after = residents.find(name)
      assert.isAbove(after?.epoch ?? 0, other.epoch)
      assert.strictEqual(after!.machine.wants(new Set([run.task])), 1)
      assert.isFalse(before.isOpen)
    }).pipe(Effect.provide(Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer()))))
})
