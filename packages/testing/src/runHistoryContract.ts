import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import { RunHistory } from "@orrery/core/RunHistory"
import { noNotes } from "@orrery/core/RunNotes"
import { RunReader } from "@orrery/core/RunReader"
import { Effect, type Layer } from "effect"
import { batchOf, finishOf, newRunId, sampleRun, takePartition } from "./storeSamples.js"

/** What every `RunHistory` must do to what the `Journal` of the same store has written. */
export const runHistoryContract = (
  name: string,
  store: Layer.Layer<Journal | PartitionStore | ProgressStore | RunHistory | RunReader, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`RunHistory contract: ${name}`, (it) => {
    it.effect("deletes final runs and what they have told, and leaves every other run alone", () =>
      Effect.gen(function*() {
        const { delete: deleteFinal } = yield* RunHistory
        const { commit } = yield* Journal
        const reader = yield* RunReader
        const progress = yield* ProgressStore
        const owner = yield* takePartition()
        const [done, failed, kept, waiting] = yield* Effect.all([
          sampleRun({ seq: 1 }),
          sampleRun({ seq: 2 }),
          sampleRun({ seq: 3 }),
          sampleRun({ seq: 4 })
        ])
        yield* commit(batchOf(owner, { inserts: [done, failed, kept, waiting] }))
        for (const run of [done, kept, waiting]) {
          const notes = { ...noNotes(run.id), progress: "50", progressCount: 1 }
          yield* progress.write({ ...owner, rows: [{ notes, checkpoint: undefined }] })
        }
        yield* commit(batchOf(owner, {
          finishes: [finishOf(done), finishOf(failed, { state: "failed", result: null, failure: null }), finishOf(kept)]
        }))
        const ids = [done.id, failed.id, waiting.id, yield* newRunId]

        const first = yield* deleteFinal(ids)
        const again = yield* deleteFinal(ids)
        const none = yield* deleteFinal([])

        assert.deepStrictEqual([first, again, none], [2, 0, 0])
        const found = yield* Effect.forEach([done, failed, kept, waiting], ({ id }) => reader.find(id))
        assert.deepStrictEqual(found.map((run) => run?.state), [undefined, undefined, "succeeded", "ready"])
        assert.isUndefined(yield* reader.findFinal(failed.id))
        const told = yield* progress.find([done.id, kept.id, waiting.id])
        assert.deepStrictEqual(new Set(told.map(({ runId }) => runId)), new Set([kept.id, waiting.id]))
        // Where it has run, the owner can go on with it.
        yield* commit(batchOf(owner, { finishes: [finishOf(waiting)] }))
        assert.strictEqual((yield* reader.find(waiting.id))?.state, "succeeded")
      }))

    it.effect("lets a request that is sent again make a run that was deleted", () =>
      Effect.gen(function*() {
        const { delete: deleteFinal } = yield* RunHistory
        const { commit } = yield* Journal
        const owner = yield* takePartition()
        const run = yield* sampleRun()
        yield* commit(batchOf(owner, { inserts: [run] }))
        yield* commit(batchOf(owner, { finishes: [finishOf(run)] }))
        const before = yield* commit(batchOf(owner, { resends: [{ ...run, seq: 2 }] }))
        yield* deleteFinal([run.id])
        const after = yield* commit(batchOf(owner, { resends: [{ ...run, seq: 3 }] }))

        assert.deepStrictEqual([before.duplicates.size, after.duplicates.size], [1, 0])
      }))
  })
