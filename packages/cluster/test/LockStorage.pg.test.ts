import { RunnerAddress, RunnerStorage, ShardId, ShardingConfig } from "@effect/cluster"
import { PgClient } from "@effect/sql-pg"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as LockStorage from "../src/LockStorage.js"
import { NodeIdentity } from "../src/NodeIdentity.js"

const self = RunnerAddress.make("127.0.0.1", 1)
const [one, two, three] = [1, 2, 3].map((id) => ShardId.make("default", id)) as [
  ShardId.ShardId,
  ShardId.ShardId,
  ShardId.ShardId
]

const identity = Layer.succeed(NodeIdentity, {
  nodeId: "node",
  host: "127.0.0.1",
  runnerPort: 1,
  dataPort: 2,
  runnerAddress: "127.0.0.1:1",
  dataAddress: "127.0.0.1:2"
})

/** One of a node, with its sessions. */
const storage = (databaseUrl: Effect.Effect.Success<typeof TestPostgres.freshDatabase>) =>
  Effect.map(
    Layer.build(
      LockStorage.layer.pipe(
        Layer.provide([
          PgClient.layer({ url: databaseUrl, maxConnections: 2 }),
          ShardingConfig.layer(),
          ClusterConfig.layer(),
          identity
        ])
      )
    ),
    (context) => Context.get(context, RunnerStorage.RunnerStorage)
  )

const idsOf = (shards: ReadonlyArray<ShardId.ShardId>) => shards.map(({ id }) => id).sort()

it.scopedLive("tells Sharding of the locks that it asked for, and of none that the node is letting go of", () =>
  Effect.gen(function*() {
    const locks = yield* storage(yield* TestPostgres.freshDatabase)

    assert.deepStrictEqual(idsOf(yield* locks.acquire(self, [one, two])), [1, 2])
    assert.deepStrictEqual(idsOf(yield* locks.acquire(self, [three])), [3])
  }))

it.scopedLive("does not lock anew what the node has let go of, until it is asked to", () =>
  Effect.gen(function*() {
    const databaseUrl = yield* TestPostgres.freshDatabase
    const [locks, heir] = [yield* storage(databaseUrl), yield* storage(databaseUrl)]
    yield* locks.acquire(self, [one, two])

    yield* locks.release(self, one)
    // Sharding may have listed it just before.
    assert.deepStrictEqual(idsOf(yield* locks.refresh(self, [one, two])), [2])

    assert.deepStrictEqual(idsOf(yield* heir.acquire(self, [one])), [1])
    yield* heir.release(self, one)
    assert.deepStrictEqual(idsOf(yield* locks.acquire(self, [one])), [1])
    assert.deepStrictEqual(idsOf(yield* locks.refresh(self, [one, two])), [1, 2])
  }))
