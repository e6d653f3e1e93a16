import { assert, it } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import { RunReader } from "@orrery/core/RunReader"
import { runReaderContract } from "@orrery/testing/runReaderContract"
import { batchOf, finishOf, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect } from "effect"

runReaderContract("postgres", TestStore.layer)

it.scopedLive("shows a run whose failure it cannot read", () =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const reader = yield* RunReader
    const owner = yield* takePartition()
    const run = yield* sampleRun()
    yield* journal.commit(batchOf(owner, { inserts: [run] }))

    yield* journal.commit(
      batchOf(owner, { finishes: [finishOf(run, { state: "failed", failure: "of another release" })] })
    )

    const found = yield* reader.find(run.id)
    assert.deepStrictEqual(found?.failure, { kind: "undecodable", tag: "RunFailure", message: "of another release" })
  }).pipe(Effect.provide(TestStore.layer)))
