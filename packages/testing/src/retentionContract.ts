import { assert, layer } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import { dayMs } from "@orrery/core/Retention"
import { RunReader } from "@orrery/core/RunReader"
import type { FinalState } from "@orrery/core/RunState"
import { Context, Effect, type Layer } from "effect"
import { notesOf } from "./progressStoreContract.js"
import { batchOf, finishOf, samplePartition, sampleRun, takePartition } from "./storeSamples.js"

/** Time, for what has ended. */
export class HistoryAge extends Context.Tag("@orrery/testing/HistoryAge")<HistoryAge, {
  /** All that has ended by now, ended so much earlier. */
  readonly pass: (ms: number) => Effect.Effect<void>
  /** What nodes do from time to time. */
  readonly upkeep: Effect.Effect<void>
}>() {}

const hourMs = 3_600_000

/** Days, and by when it is gone at the latest: docs/retention.md. */
const periods = [[1, 2], [7, 8], [30, 35], [90, 105], [365, 425]] as const
const states: ReadonlyArray<FinalState> = ["succeeded", "failed", "cancelled", "expired"]

/** What every `Journal` must do with `keptDays`, as its `RunReader` shows. */
export const retentionContract = (
  name: string,
  store: Layer.Layer<HistoryAge | Journal | PartitionStore | ProgressStore | RunReader, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`Retention contract: ${name}`, (it) => {
    it.effect("keeps each run for at least as long as it shall be, whatever its end, and then no longer than it says", () =>
      Effect.gen(function*() {
        const journal = yield* Journal
        const reader = yield* RunReader
        const { pass, upkeep } = yield* HistoryAge
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const cases = [...periods.map(([days]) => days), 0].flatMap((days) => states.map((state) => ({ days, state })))
        const runs = yield* Effect.forEach(cases, (_, at) => sampleRun({ seq: at + 1 }))
        yield* journal.commit(batchOf(owner, { inserts: runs }))
        yield* journal.commit(
          batchOf(owner, {
            finishes: cases.map(({ days, state }, at) => finishOf(runs[at]!, { state, result: null, keptDays: days }))
          })
        )
        let age = 0
        const keptAt = (ms: number) =>
          Effect.gen(function*() {
            yield* pass(ms - age)
            age = ms
            yield* upkeep
            const found = yield* Effect.forEach(runs, ({ id }) => reader.find(id))
            const listed = yield* reader.list({ namespace: partition.namespace, limit: 100 })
            assert.sameMembers(listed.map(({ id }) => id), found.flatMap((run) => run?.id ?? []))
            return cases.filter((_, at) => found[at] !== undefined)
          })

        assert.deepStrictEqual(yield* keptAt(0), cases)
        for (const [days, gone] of periods) {
          assert.deepStrictEqual(
            yield* keptAt(days * dayMs - hourMs),
            cases.filter((each) => each.days === 0 || each.days >= days)
          )
          assert.deepStrictEqual(
            yield* keptAt(gone * dayMs + hourMs),
            cases.filter((each) => each.days === 0 || each.days > days)
          )
        }
      }))

    it.effect("knows the id of a run, and what it was told, for as long as it is kept", () =>
      Effect.gen(function*() {
        const journal = yield* Journal
        const reader = yield* RunReader
        const progress = yield* ProgressStore
        const { pass, upkeep } = yield* HistoryAge
        const partition = samplePartition()
        const owner = yield* takePartition(partition)
        const [short, long] = [yield* sampleRun({ seq: 1 }), yield* sampleRun({ seq: 2 })]
        yield* journal.commit(batchOf(owner, { inserts: [short, long] }))
        yield* progress.write({ ...owner, rows: [{ notes: notesOf(long.id), checkpoint: undefined }] })
        const failed = { state: "failed", result: null } as const
        yield* journal.commit(
          batchOf(owner, {
            finishes: [finishOf(short, { ...failed, keptDays: 1 }), finishOf(long, { ...failed, keptDays: 30 })]
          })
        )
        const again = (seq: number) =>
          Effect.map(
            journal.commit(batchOf(owner, { resends: [{ ...short, seq }, { ...long, seq: seq + 1 }] })),
            ({ duplicates }) => duplicates
          )
        const both = yield* again(3)

        yield* pass(3 * dayMs)
        yield* upkeep
        const letters = yield* Effect.forEach([short, long], ({ id }) => reader.findFinal(id))
        const { namespace, queue } = partition
        const { ends } = yield* progress.endsSince({ namespace, queue, since: 0, limit: 10 })
        const one = yield* again(5)

        assert.deepStrictEqual(both, new Set([short.id, long.id]))
        assert.isUndefined(letters[0])
        assert.strictEqual(letters[1]?.run.state, "failed")
        assert.deepStrictEqual(ends.map(({ id }) => id), [long.id])
        assert.strictEqual((yield* progress.find([long.id])).length, 1)
        // A request that is sent again after its run is gone makes another one: docs/retention.md.
        assert.deepStrictEqual(one, new Set([long.id]))
        assert.strictEqual((yield* reader.find(short.id))?.state, "ready")
      }))
  })
