/**
 * A partition with work is awake without anyone calling it: when this node acquires shards, or an actor ended with work
 * left, the partitions with work on its shards are activated. A slow sweep catches what a crash between two steps
 * could leave.
 */
import { Sharding } from "@effect/cluster"
import { partitionKey, PartitionStore } from "@orrery/core/PartitionStore"
import { Effect, Layer, Queue, Schedule } from "effect"
import { LockStorage } from "./LockStorage.js"
import { QueueEntity, shardGroup } from "./QueueEntity.js"
import { Residents } from "./Residents.js"

const sweepEvery = "15 seconds"
const locateTimeout = "3 seconds"
/** After a round in which some could not be activated: 50 ms doubling to 1 s, ten times, then the sweep. */
const again = Schedule.exponential("50 millis").pipe(
  Schedule.union(Schedule.spaced("1 second")),
  Schedule.intersect(Schedule.recurs(10))
)

const make = Effect.gen(function*() {
  const sharding = yield* Sharding.Sharding
  const store = yield* PartitionStore
  const residents = yield* Residents
  const locks = yield* LockStorage
  const client = yield* QueueEntity.client
  const hints = yield* Queue.sliding<void>(1)
  const hint = () => void hints.unsafeOffer(undefined)
  const stops = [locks.onAcquired(hint), residents.onOrphaned(hint)]
  yield* Effect.addFinalizer(() => Effect.sync(() => stops.forEach((stop) => stop())))

  const activate = Effect.gen(function*() {
    const names = yield* store.listWithWork
    const own = names.filter((name) =>
      residents.find(name) === undefined &&
      sharding.hasShardId(sharding.getShardId(partitionKey(name) as never, shardGroup))
    )
    yield* Effect.forEach(own, (name) => client(partitionKey(name)).Locate().pipe(Effect.timeout(locateTimeout)), {
      concurrency: 16,
      discard: true
    })
  })

  yield* Queue.take(hints).pipe(
    Effect.timeoutOption(sweepEvery),
    // The shard counts as ours a moment after the lock was taken.
    Effect.zipRight(Effect.sleep("5 millis")),
    Effect.zipRight(Effect.retry(activate, again)),
    // A second look: shards may have been acquired between the list and now.
    Effect.zipRight(Effect.sleep("100 millis")),
    Effect.zipRight(activate),
    Effect.catchAllCause((cause) => Effect.logWarning("could not wake partitions", cause)),
    Effect.forever,
    Effect.annotateLogs({ module: "Remember" }),
    Effect.forkScoped
  )
})

export const layer = Layer.scopedDiscard(make)
