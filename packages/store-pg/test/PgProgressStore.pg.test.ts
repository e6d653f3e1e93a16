import { assert, it } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import { ProgressStore } from "@orrery/core/ProgressStore"
import * as PgProgressStore from "@orrery/store-pg/PgProgressStore"
import { notesOf, progressStoreContract } from "@orrery/testing/progressStoreContract"
import { batchOf, finishOf, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect } from "effect"

progressStoreContract("postgres", TestStore.layer)

it.scopedLive("sweeps away what runs have told that are nowhere any more", () =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const store = yield* ProgressStore
    const client = yield* TestStore.ownClient
    const owner = yield* takePartition()
    const runs = yield* Effect.forEach([1, 2, 3], (seq) => sampleRun({ seq, lease: 1 }))
    const [waiting, final, gone] = runs.map((run) => run.id)
    yield* journal.commit(batchOf(owner, { inserts: runs }))
    yield* store.write({ ...owner, rows: runs.map((run) => ({ notes: notesOf(run.id), checkpoint: undefined })) })
    yield* journal.commit(
      batchOf(owner, { finishes: [finishOf(runs[1]!), finishOf(runs[2]!, { keep: false })] })
    )

    // Told an hour ago and more: `notesOf` is of 1970.
    const swept = yield* PgProgressStore.sweep
    yield* TestStore.query(client, "update orrery.run_progress set updated_at = extract(epoch from now()) * 1000")
    yield* TestStore.query(client, "delete from orrery.run_history")
    const lately = yield* PgProgressStore.sweep

    assert.strictEqual(swept, 1)
    assert.strictEqual(lately, 0)
    const left = yield* store.find([waiting!, final!, gone!])
    assert.sameMembers(left.map(({ runId }) => runId), [waiting!, final!])
  }).pipe(Effect.provide(TestStore.layer)))

it.scopedLive("finds ends by the index of their time, however long the history", () =>
  Effect.gen(function*() {
    const client = yield* TestStore.ownClient
    yield* takePartition()
    yield* TestStore.query(
      client,
      `insert into orrery.run_history (id, partition_id, priority, state, attempt, crashes, seq, created_at, scheduled_at,
         finished_at, task, payload, policy)
       select gen_random_uuid(), 1, 5, 5, 1, 0, n, 0, 0, extract(epoch from now())::bigint * 1000 - 80000000 + n * 1000, 't', '1', 'p'
       from generate_series(1, 60000) n`
    )
    yield* TestStore.query(client, "vacuum analyze orrery.run_history")
    yield* TestStore.query(client, "set enable_seqscan = off")
    yield* TestStore.query(client, "set enable_bitmapscan = off")

    const plan = yield* TestStore.query<{ "QUERY PLAN": string }>(
      client,
      `explain (analyze, buffers) select * from orrery.ends_since(array[1], extract(epoch from now())::bigint * 1000 - 20100000, 1000)`
    )

    // Pages looked at: a busy machine takes its time for them, and reads no more.
    const pages = /Buffers: shared hit=(\d+)/.exec(plan.map((row) => row["QUERY PLAN"]).join("\n"))?.[1]
    assert.isBelow(Number(pages), 10_000)
  }).pipe(Effect.provide(TestStore.layer)))
