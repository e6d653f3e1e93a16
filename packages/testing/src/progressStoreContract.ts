import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import type { RunId } from "@orrery/core/RunId"
import { noNotes, type NoteReport, type StoredNotes, withReport } from "@orrery/core/RunNotes"
import { Effect, type Layer } from "effect"
import { batchOf, finishOf, newRunId, samplePartition, sampleRun, takePartition } from "./storeSamples.js"

export const reportOf = (runId: RunId, fields: Partial<NoteReport> = {}): NoteReport => ({
  partitionId: 1,
  runId,
  attempt: 1,
  lease: 1,
  progress: "10",
  firstLine: 1,
  lines: [{ at: 5, text: "begun" }],
  checkpoint: undefined,
  ...fields
})

/** Of one attempt, in 1970. */
export const notesOf = (runId: RunId, fields: Partial<NoteReport> = {}): StoredNotes =>
  withReport(noNotes(runId), reportOf(runId, fields), 1_000)

/** What every `ProgressStore` must do, beside the `Journal` of the same store. */
export const progressStoreContract = (
  name: string,
  store: Layer.Layer<Journal | PartitionStore | ProgressStore, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`ProgressStore contract: ${name}`, (it) => {
    it.effect("shows what was written last, and nothing of a run that has told nothing", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const owner = yield* takePartition()
        const [id, silent] = [yield* newRunId, yield* newRunId]
        const first = notesOf(id, { lines: [{ at: 1, text: "a \"quoted\" line\u0000\n" }] })
        const second = withReport(first, reportOf(id, { firstLine: 2, progress: `{"done":3}` }), 2_000)

        yield* progress.write({ ...owner, rows: [{ notes: first, checkpoint: undefined }] })
        yield* progress.write({ ...owner, rows: [{ notes: second, checkpoint: undefined }] })
        yield* progress.write({ ...owner, rows: [{ notes: second, checkpoint: undefined }] })

        assert.deepStrictEqual(yield* progress.find([id, silent]), [second])
        assert.isNull(yield* progress.checkpoint(id))
        assert.isNull(yield* progress.checkpoint(silent))
      }))

    it.effect("keeps a checkpoint until the next one", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const owner = yield* takePartition()
        const id = yield* newRunId
        const notes = notesOf(id)

        yield* progress.write({ ...owner, rows: [{ notes, checkpoint: `{"page":1}` }] })
        yield* progress.write({ ...owner, rows: [{ notes, checkpoint: undefined }] })
        const kept = yield* progress.checkpoint(id)
        yield* progress.write({ ...owner, rows: [{ notes, checkpoint: `{"page":2}` }] })

        assert.strictEqual(kept, `{"page":1}`)
        assert.strictEqual(yield* progress.checkpoint(id), `{"page":2}`)
      }))

    it.effect("refuses an owner that has been replaced, and writes nothing of it", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const partition = samplePartition()
        const before = yield* takePartition(partition)
        const id = yield* newRunId
        yield* progress.write({ ...before, rows: [{ notes: notesOf(id), checkpoint: "1" }] })
        const after = yield* takePartition(partition)

        const late = yield* Effect.flip(
          progress.write({ ...before, rows: [{ notes: notesOf(id, { progress: "99" }), checkpoint: "2" }] })
        )

        assert.strictEqual(late._tag, "Fenced")
        assert.deepStrictEqual(yield* progress.find([id]), [notesOf(id)])
        assert.strictEqual(yield* progress.checkpoint(id), "1")
        yield* progress.write({ ...after, rows: [{ notes: notesOf(id, { progress: "20" }), checkpoint: undefined }] })
      }))

    it.effect("leaves what a later attempt has told", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const owner = yield* takePartition()
        const id = yield* newRunId
        const later = notesOf(id, { lease: 7, attempt: 2 })
        yield* progress.write({ ...owner, rows: [{ notes: later, checkpoint: "2" }] })

        yield* progress.write({ ...owner, rows: [{ notes: notesOf(id, { lease: 6 }), checkpoint: "1" }] })

        assert.deepStrictEqual(yield* progress.find([id]), [later])
        assert.strictEqual(yield* progress.checkpoint(id), "2")
      }))

    it.effect("keeps what a run has told after its end", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const journal = yield* Journal
        const owner = yield* takePartition()
        const run = yield* sampleRun()
        yield* journal.commit(batchOf(owner, { inserts: [run] }))
        yield* progress.write({ ...owner, rows: [{ notes: notesOf(run.id), checkpoint: undefined }] })

        yield* journal.commit(batchOf(owner, { finishes: [finishOf(run)] }))

        assert.deepStrictEqual(yield* progress.find([run.id]), [notesOf(run.id)])
      }))

    it.effect("tells the ends of a queue in order, and none twice or never when it goes on from the horizon", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const journal = yield* Journal
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const other = yield* takePartition({ ...partition, queue: "other" })
        const runs = yield* Effect.forEach([1, 2, 3], (seq) => sampleRun({ seq }))
        const elsewhere = yield* sampleRun()
        yield* journal.commit(batchOf(owner, { inserts: runs }))
        yield* journal.commit(batchOf(other, { inserts: [elsewhere] }))
        yield* journal.commit(batchOf(other, { finishes: [finishOf(elsewhere)] }))
        const query = { ...partition, limit: 2 }

        const none = yield* progress.endsSince({ ...query, since: 0 })
        yield* journal.commit(batchOf(owner, { finishes: [finishOf(runs[0]!)] }))
        yield* Effect.sleep("5 millis")
        yield* journal.commit(
          batchOf(owner, { finishes: [finishOf(runs[1]!, { state: "failed" }), finishOf(runs[2]!)] })
        )
        const first = yield* progress.endsSince({ ...query, since: none.horizon })
        const second = yield* progress.endsSince({ ...query, since: first.ends[1]!.finishedAt })
        yield* Effect.sleep("5 millis")
        const after = yield* progress.endsSince({
          ...query,
          since: (yield* progress.endsSince({ ...query, since: 0 })).horizon
        })

        assert.deepStrictEqual([none.ends, none.more], [[], false])
        assert.isTrue(first.more)
        assert.strictEqual(first.ends[0]!.id, runs[0]!.id)
        assert.deepStrictEqual(
          [...new Map([...first.ends, ...second.ends].map(({ id, state }) => [id, state]))].sort(),
          [[runs[0]!.id, "succeeded"], [runs[1]!.id, "failed"], [runs[2]!.id, "succeeded"]].sort()
        )
        assert.deepStrictEqual(after.ends, [])
      }))

    it.effect("tells how runs of a queue have ended, and which have not", () =>
      Effect.gen(function*() {
        const progress = yield* ProgressStore
        const journal = yield* Journal
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const other = yield* takePartition({ ...partition, queue: "other" })
        const [waiting, done, failed, unkept] = yield* Effect.forEach([1, 2, 3, 4], (seq) => sampleRun({ seq }))
        const elsewhere = yield* sampleRun()
        yield* journal.commit(batchOf(owner, { inserts: [waiting!, done!, failed!, unkept!] }))
        yield* journal.commit(batchOf(other, { inserts: [elsewhere] }))
        yield* journal.commit(batchOf(owner, {
          finishes: [finishOf(done!), finishOf(failed!, { state: "failed" }), finishOf(unkept!, { keep: false })]
        }))
        const ids = [waiting!, done!, failed!, unkept!, elsewhere].map(({ id }) => id)

        const endings = yield* progress.endings(partition, [...ids, yield* newRunId])
        const none = yield* progress.endings(partition, [])

        assert.deepStrictEqual(
          [...endings].sort(),
          [[waiting!.id, "open"], [done!.id, "succeeded"], [failed!.id, "failed"]].sort()
        )
        assert.strictEqual(none.size, 0)
      }))
  })
