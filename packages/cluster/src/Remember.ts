/**
 * A partition with work is awake without anyone calling it: when this node acquires shards, or an actor ended with work
 * left, the partitions with work on its shards are activated. A slow sweep catches what a crash between two steps
 * could leave.
 *
 * Only partitions that nobody is known to work on are looked at. While a transaction anywhere holds dead rows back, a look
 * reads through all that its partition has left, and those of a busy one are many: 16 ms at 24,000 dead rows, 210 at
 * 96,000 (docs/decisions/0012).
 */
import { Sharding } from "@effect/cluster"
import { partitionKey, type PartitionName, PartitionStore, type WithWork } from "@orrery/core/PartitionStore"
import { Duration, Effect, Layer, Queue, Schedule } from "effect"
import { LockStorage } from "./LockStorage.js"
import { QueueEntity, shardGroup } from "./QueueEntity.js"
import { Residents } from "./Residents.js"

const sweepEvery = Duration.seconds(15)
/** At least so many times as long as the last sweep took: sweeps are never more than a hundredth of what the database does. */
const sweepPauseFactor = 100
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

  const isOurs = (name: PartitionName) =>
    sharding.hasShardId(sharding.getShardId(partitionKey(name) as never, shardGroup))
  /** Had work when they were looked at, and were on other nodes' shards: looked at again when they come to ours. */
  let elsewhere: ReadonlyArray<WithWork> = []

  const activate = Effect.gen(function*() {
    elsewhere = elsewhere.filter((each) => !isOurs(each))
    const awake = residents.list().filter((actor) => actor.isOpen && !actor.isRetiring).map((actor) =>
      actor.partitionId
    )
    const found = yield* store.listWithWork([...awake, ...elsewhere.map(({ partitionId }) => partitionId)])
    elsewhere = elsewhere.concat(found.filter((each) => !isOurs(each)))
    // One that is being handed over starts nothing: should its shard be ours after all, it is made anew.
    const own = found.filter((each) => residents.find(each)?.isRetiring !== false && isOurs(each))
    yield* Effect.forEach(own, (name) => client(partitionKey(name)).Locate().pipe(Effect.timeout(locateTimeout)), {
      concurrency: 16,
      discard: true
    })
  })
  let sweepPause = sweepEvery
  const timed = Effect.map(Effect.timed(activate), ([took]) => {
    sweepPause = Duration.max(sweepEvery, Duration.times(took, sweepPauseFactor))
  })

  yield* Queue.take(hints).pipe(
    Effect.raceFirst(Effect.suspend(() => Effect.sleep(sweepPause))),
    // The shard counts as ours a moment after the lock was taken.
    Effect.zipRight(Effect.sleep("5 millis")),
    Effect.zipRight(Effect.retry(activate, again)),
    // A second look: shards may have been acquired between the list and now.
    Effect.zipRight(Effect.sleep("100 millis")),
    Effect.zipRight(timed),
    Effect.catchAllCause((cause) => Effect.logWarning("could not wake partitions", cause)),
    Effect.forever,
    Effect.annotateLogs({ module: "Remember" }),
    Effect.forkScoped
  )
})

export const layer = Layer.scopedDiscard(make)
