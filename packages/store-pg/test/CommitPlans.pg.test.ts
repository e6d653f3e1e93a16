/** What a commit reads must follow from what it changes, not from what the planner believes of the tables. */
import { assert, it } from "@effect/vitest"
import type { JournalBatch } from "@orrery/core/Journal"
import * as PgPools from "@orrery/store-pg/PgPools"
import { batchOf, finishOf, sampleRun, takePartition, updateOf } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Context, Effect, Layer } from "effect"
import { commitStatement } from "../src/internal/commitStatement.js"

const deadRows = 30_000
const batchRows = 50
/** Some 20 are. A walk through the index of ids reads more than one per dead row. */
const pagesPerRow = 60

/** Deletes rows that stay, as the returned session could still see them; the statistics then know of a small table only. */
const keepDeadRows = Effect.gen(function*() {
  const holder = yield* TestStore.ownClient
  const client = yield* TestStore.ownClient
  yield* TestStore.query(holder, "begin isolation level repeatable read")
  yield* TestStore.query(holder, "select 1 from orrery.partitions")
  yield* TestStore.query(
    client,
    `insert into orrery.runs (id, partition_id, priority, state, attempt, crashes, seq, lease, created_at, scheduled_at,
       order_key, task, payload, policy)
     select gen_random_uuid(), 1, 5, 2, 0, 0, n, 0, 0, 0, n, 'mail.send', '1', 'p' from generate_series(1, ${deadRows}) n`
  )
  yield* TestStore.query(client, "delete from orrery.runs")
  yield* TestStore.query(client, "vacuum analyze orrery.runs")
})

it.scopedLive("a commit reads the rows it changes, however many dead ones are kept beside them", () =>
  Effect.gen(function*() {
    const owner = yield* takePartition()
    yield* keepDeadRows
    // A pool of its own: those of the store's are held by its journal.
    const { url } = yield* TestStore.TestDatabase
    const { journal } = Context.get(yield* Layer.build(PgPools.layer({ url })), PgPools.PgPools)
    const session = yield* Effect.acquireRelease(
      Effect.promise(() => journal.connect()),
      (connected) => Effect.sync(() => connected.release(true))
    )
    // The database may be dropped first.
    session.on("error", () => undefined)
    /** Pages of the index of ids and of the table that the statement reads; it is undone. */
    const pagesOf = (batches: ReadonlyArray<JournalBatch>) =>
      Effect.promise(async () => {
        await session.query("begin")
        for (const batch of batches) await session.query(commitStatement([batch]))
        const pages = "select sum(pg_stat_get_xact_blocks_fetched(c))::integer as pages from unnest($1::regclass[]) c"
        const { rows } = await session.query<{ pages: number }>(pages, [["orrery.runs", "orrery.runs_pkey"]])
        await session.query("rollback")
        return rows[0]!.pages
      })
    const runs = yield* Effect.forEach(Array.from({ length: batchRows }), (_, at) => sampleRun({ seq: at + 1 }))
    const made = batchOf(owner, { inserts: runs })
    const withInserts = yield* pagesOf([made])
    const edit = { payload: "2", policy: "p", priority: 1, task: "mail.send", keys: null }

    const changes: ReadonlyArray<JournalBatch> = [
      batchOf(owner, { updates: runs.map((run) => updateOf(run, { state: "running" })) }),
      batchOf(owner, { updates: runs.map((run) => ({ ...updateOf(run), edit })) }),
      batchOf(owner, { finishes: runs.map((run) => finishOf(run)) }),
      batchOf(owner, { finishes: runs.map((run) => finishOf(run, { keep: false })) })
    ]

    for (const change of changes) {
      const pages = (yield* pagesOf([made, change])) - withInserts
      assert.isAbove(pages, batchRows)
      assert.isBelow(pages, batchRows * pagesPerRow)
    }
  }).pipe(Effect.provide(TestStore.layer)))
