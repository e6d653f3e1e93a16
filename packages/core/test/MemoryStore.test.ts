import { identityContract } from "@orrery/testing/identityContract"
import { assert, it } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { RunReader } from "@orrery/core/RunReader"
import { journalContract } from "@orrery/testing/journalContract"
import { partitionStoreContract } from "@orrery/testing/partitionStoreContract"
import { queueSettingsContract } from "@orrery/testing/queueSettingsContract"
import { progressStoreContract } from "@orrery/testing/progressStoreContract"
import { runHistoryContract } from "@orrery/testing/runHistoryContract"
import { runReaderContract } from "@orrery/testing/runReaderContract"
import { HistoryAge, retentionContract } from "@orrery/testing/retentionContract"
import { batchOf, finishOf, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import { Clock, Effect, Layer, TestClock } from "effect"

journalContract("memory", MemoryStore.layer)
identityContract("memory", MemoryStore.layer)
partitionStoreContract("memory", MemoryStore.layer)
queueSettingsContract("memory", MemoryStore.layer)
runReaderContract("memory", MemoryStore.layer)
runHistoryContract("memory", MemoryStore.layer)
progressStoreContract("memory", MemoryStore.layer)

/** A store whose clock can be put forward. */
const aging = Layer.suspend(() => {
  const live = Clock.make()
  let passed = 0
  const clock: Clock.Clock = {
    ...live,
    unsafeCurrentTimeMillis: () => live.unsafeCurrentTimeMillis() + passed,
    currentTimeMillis: Effect.sync(() => live.unsafeCurrentTimeMillis() + passed)
  }
  const age = HistoryAge.of({
    pass: (ms) =>
      Effect.sync(() => {
        passed += ms
      }),
    upkeep: Effect.void
  })
  return Layer.merge(
    Layer.effectContext(Effect.withClock(MemoryStore.make(), clock)),
    Layer.succeed(HistoryAge, age)
  )
})
retentionContract("memory", aging)

it.effect("tells time by the clock of the program", () =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const reader = yield* RunReader
    const owner = yield* takePartition()
    const run = yield* sampleRun({ state: "scheduled", scheduledAt: 5_000 })
    yield* journal.commit(batchOf(owner, { inserts: [run] }))
    assert.strictEqual((yield* reader.find(run.id))?.state, "scheduled")

    yield* TestClock.adjust("5 seconds")

    assert.strictEqual((yield* reader.find(run.id))?.state, "ready")
    assert.strictEqual((yield* journal.commit(batchOf(owner, {}))).now, 5_000)
  }).pipe(Effect.provide(MemoryStore.layer)))

it.effect("forgets the oldest final runs beyond its bound", () =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const reader = yield* RunReader
    const owner = yield* takePartition()
    const runs = yield* Effect.forEach([1, 2, 3], (seq) => sampleRun({ seq }))
    yield* journal.commit(batchOf(owner, { inserts: runs }))

    for (const run of runs) yield* journal.commit(batchOf(owner, { finishes: [finishOf(run)] }))

    const found = yield* Effect.forEach(runs, (run) => reader.find(run.id))
    assert.deepStrictEqual(found.map((run) => run?.state), [undefined, "succeeded", "succeeded"])
  }).pipe(Effect.provide(MemoryStore.layerWith({ historyRunsMax: 2 }))))
