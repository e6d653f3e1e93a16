import { assert, describe, it } from "@effect/vitest"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { identityContract } from "@orrery/testing/identityContract"
import { partitionStoreContract } from "@orrery/testing/partitionStoreContract"
import { samplePartition, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect, Fiber } from "effect"

partitionStoreContract("postgres", TestStore.layer)
identityContract("postgres", TestStore.layer)

describe("a take-over", () => {
  it.scopedLive("whose session ends in the middle of it fails as a whole, and the next one finds another session", () =>
    Effect.gen(function*() {
      const store = yield* PartitionStore
      const partition = samplePartition()
      const before = yield* takePartition(partition)
      const client = yield* TestStore.ownClient
      const looking = yield* TestStore.ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "select from orrery.partitions where id = $1 for share", [before.partitionId])
      const taking = yield* Effect.fork(Effect.flip(store.takeOver(partition, "test")))

      yield* TestStore.query(
        looking,
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'orrery-read' and wait_event_type = 'Lock' and datname = current_database()`,
        []
      ).pipe(
        Effect.repeat({ until: (rows) => rows.length > 0 }),
        Effect.timeout("20 seconds")
      )

      assert.strictEqual((yield* Fiber.join(taking))._tag, "StoreUnavailable")
      yield* TestStore.query(client, "rollback")
      assert.strictEqual((yield* takePartition(partition)).epoch, before.epoch + 1)
    }).pipe(Effect.provide(TestStore.layer)))
})
