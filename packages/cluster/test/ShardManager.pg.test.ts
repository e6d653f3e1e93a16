/** What Sharding makes of a membership that changes while shards are on their way. */
import {
  Entity,
  Runner,
  RunnerAddress,
  RunnerStorage,
  Sharding,
  ShardingConfig,
  SqlRunnerStorage
} from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { PgClient } from "@effect/sql-pg"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { assert, it } from "@effect/vitest"
import { Context, Deferred, Effect, Layer } from "effect"
import { DatabaseMemory } from "../src/DatabaseMemory.js"
import { LockStorage } from "../src/LockStorage.js"
import * as NodeIdentity from "../src/NodeIdentity.js"
import { shardGroup } from "../src/QueueEntity.js"
import * as ShardManager from "../src/ShardManager.js"
import { until } from "./actorRig.js"

const Slow = Entity.make("Slow", [Rpc.make("Wake")])
const entityIds = Array.from({ length: 20 }, (_, n) => `slow-${n}`)
const newcomer = RunnerAddress.make("127.0.0.1", 1)
/** Sharding looks at all shards again this long after it got some, and gives no sign of it. */
const looksAgainMs = 1_000
/** Without a look meanwhile it would be when the row of the one that left expires, after some 4 s. */
const backWithinMs = 3_000

/** Of a database that is always what it was. */
const memory = Layer.succeed(DatabaseMemory, {
  told: () => null,
  takingOver: () => () => true,
  verifySoon: () => undefined,
  isTrusted: () => true,
  rest: Effect.void,
  regressed: Effect.never
})

it.scopedLive(
  "a shard that is assigned back while it is being let go of is had again soon",
  () =>
    Effect.gen(function*() {
      const databaseUrl = yield* TestPostgres.freshDatabase
      const node = yield* Layer.build(
        ShardManager.layer.pipe(
          Layer.provide([NodeIdentity.layer, memory]),
          Layer.provide(NodeConfig.layerAll({ databaseUrl }))
        )
      )
      const members = Context.get(
        yield* Layer.build(
          SqlRunnerStorage.layer.pipe(Layer.provide([PgClient.layer({ url: databaseUrl }), ShardingConfig.layer()]))
        ),
        RunnerStorage.RunnerStorage
      )
      const sharding = Context.get(node, Sharding.Sharding)
      const locks = Context.get(node, LockStorage)
      const isEnding = yield* Deferred.make<void>()
      const mayEnd = yield* Effect.makeLatch(false)
      yield* sharding.registerEntity(
        Slow,
        Effect.as(
          Effect.addFinalizer(() => Effect.zipRight(Deferred.succeed(isEnding, undefined), mayEnd.await)),
          { Wake: () => Effect.void }
        )
      )
      const client = yield* Slow.client.pipe(Effect.provide(node))
      yield* Effect.forEach(entityIds, (id) => client(id).Wake(), { concurrency: "unbounded" })
      const all = locks.heldCount()

      yield* members.register(Runner.make({ address: newcomer, groups: [shardGroup], weight: 1 }), true)
      locks.look()
      yield* Deferred.await(isEnding)
      yield* members.setRunnerHealth(newcomer, false)
      locks.look()
      yield* until(() => locks.runners().some(({ healthy }) => !healthy))
      yield* Effect.sleep(looksAgainMs * 1.5)
      const began = performance.now()
      let acquisitions = 0
      locks.onAcquired(() => void acquisitions++)
      yield* mayEnd.open
      yield* until(() => acquisitions > 0 && locks.heldCount() === all)
      const took = performance.now() - began

      assert.isAbove(all, 0)
      assert.isBelow(took, backWithinMs)
    }),
  60_000
)
