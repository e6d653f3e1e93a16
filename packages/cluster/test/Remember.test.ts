/** Which partitions are looked at for work, and how often. */
import { ShardId, Sharding } from "@effect/cluster"
import { PartitionStore, type WithWork } from "@orrery/core/PartitionStore"
import { assert, it } from "@effect/vitest"
import { Effect, Layer, TestClock } from "effect"
import { LockStorage } from "../src/LockStorage.js"
import type { QueueActor } from "../src/QueueActor.js"
import * as Remember from "../src/Remember.js"
import { Residents } from "../src/Residents.js"

const partitionOf = (queue: string, partitionId: number): WithWork => ({
  namespace: "default",
  queue,
  partition: 0,
  partitionId
})
const keyOf = ({ queue }: WithWork) => `default|${queue}|0`

/** All partitions have work. A shard each, by queue; the actors of located ones live here. */
const setUp = (partitions: ReadonlyArray<WithWork>) => {
  const state = {
    ours: new Set<string>(),
    awake: new Map<string, QueueActor>(),
    looks: [] as Array<ReadonlyArray<string>>,
    lookTakes: "0 millis" as `${number} ${"millis" | "seconds"}`,
    acquired: () => undefined as void
  }
  const locate = (key: string) => {
    const { partitionId } = partitions.find((each) => keyOf(each) === key)!
    state.awake.set(key, { partitionId, isOpen: true } as QueueActor)
  }
  const queueOf = (key: string) => key.split("|")[1]!
  const services = Layer.mergeAll(
    Layer.mock(Sharding.Sharding, {
      getShardId: (key) => ShardId.make(queueOf(key), 1),
      hasShardId: (shard) => state.ours.has(shard.group),
      makeClient: () => Effect.succeed(((key: string) => ({ Locate: () => Effect.sync(() => locate(key)) })) as never)
    }),
    Layer.mock(PartitionStore, {
      listWithWork: (except) =>
        Effect.suspend(() => {
          const found = partitions.filter(({ partitionId }) => !except.includes(partitionId))
          state.looks.push(found.map(({ queue }) => queue))
          return Effect.delay(Effect.succeed(found), state.lookTakes)
        })
    }),
    Layer.mock(Residents, {
      hub: undefined as never,
      find: (name) => state.awake.get(`default|${name.queue}|0`),
      list: () => [...state.awake.values()],
      holding: () => undefined,
      onOrphaned: () => () => undefined
    }),
    Layer.mock(LockStorage, {
      onAcquired: (callback) => {
        state.acquired = callback
        return () => undefined
      },
      onRunners: () => () => undefined,
      runners: () => [],
      confirmedMsAgo: () => 0,
      look: () => undefined,
      lookIfAlone: () => undefined,
      isLeaving: () => false,
      hasOthers: () => false,
      leave: () => undefined,
      heldCount: () => state.ours.size,
      holds: () => true,
      heldSince: () => 0
    })
  )
  return Effect.as(Layer.build(Layer.provide(Remember.layer, services)), state)
}

/** Both looks of a round, each of which may take that long. */
const round = (takes: "0 millis" | "1 seconds" = "0 millis") =>
  Effect.forEach(["5 millis", takes, "100 millis", takes] as const, (step) => TestClock.adjust(step), { discard: true })

it.scoped("wakes what is ours, and does not look again at what is awake, or at work elsewhere, until that comes to us", () =>
  Effect.gen(function*() {
    const state = yield* setUp([partitionOf("a", 1), partitionOf("b", 2)])
    state.ours.add("a")

    state.acquired()
    yield* round()
    assert.deepStrictEqual([...state.awake.keys()], ["default|a|0"])
    assert.deepStrictEqual(state.looks, [["a", "b"], []])

    yield* TestClock.adjust("15 seconds")
    yield* round()
    assert.deepStrictEqual(state.looks.slice(2), [[], []])

    state.ours.add("b")
    state.acquired()
    yield* round()
    assert.deepStrictEqual([...state.awake.keys()], ["default|a|0", "default|b|0"])
    assert.deepStrictEqual(state.looks.slice(4), [["b"], []])

    // Its actor ended, and nobody told.
    state.awake.delete("default|a|0")
    yield* TestClock.adjust("15 seconds")
    yield* round()
    assert.deepStrictEqual(state.looks.slice(6), [["a"], []])
    assert.isTrue(state.awake.has("default|a|0"))
  }))

it.scoped("sweeps less often when a sweep takes long, but listens all the same", () =>
  Effect.gen(function*() {
    const state = yield* setUp([partitionOf("a", 1)])
    state.lookTakes = "1 seconds"
    state.acquired()
    yield* round("1 seconds")
    assert.strictEqual(state.looks.length, 2)

    yield* TestClock.adjust("99 seconds")
    assert.strictEqual(state.looks.length, 2)
    yield* TestClock.adjust("1 seconds")
    yield* round("1 seconds")
    assert.strictEqual(state.looks.length, 4)

    state.acquired()
    yield* round("1 seconds")
    assert.strictEqual(state.looks.length, 6)
  }))
