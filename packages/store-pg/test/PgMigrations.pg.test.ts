import { assert, describe, it } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import { batchOf, finishOf, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect, Layer } from "effect"
import { names } from "../src/internal/states.js"

describe.concurrent("PgMigrations", () => {
  it.scopedLive("may be run by five nodes at once, each with a single connection", () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.freshDatabase
      const node = PgMigrations.run.pipe(
        Effect.provide(PgPools.layer({ url, journalConnections: 1, readConnections: 1 }))
      )

      yield* Effect.all(Array.from({ length: 5 }, () => node), { concurrency: "unbounded", discard: true })

      const client = yield* TestStore.ownClient.pipe(Effect.provideService(TestStore.TestDatabase, { url }))
      const applied = yield* TestStore.query(
        client,
        "select name from orrery.orrery_migrations order by migration_id"
      )
      const names = [
        "runs",
        "run_keys",
        "schedules",
        "run_origin",
        "run_identities",
        "queue_settings",
        "run_progress",
        "inbox",
        "history_retention",
        "promised_backfills",
        "start_rolls"
      ]
      assert.deepStrictEqual(applied, names.map((name) => ({ name })))
    }))

  it.scopedLive("has the state names of the code in SQL", () =>
    Effect.gen(function*() {
      const client = yield* TestStore.ownClient

      const found = yield* TestStore.query<{ name: string }>(
        client,
        "select orrery.state_name(code::smallint) as name from generate_series(0, $1) code order by code",
        [names.length - 1]
      )

      assert.deepStrictEqual(found.map((row) => row.name), [...names])
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("shows people runs with names and times", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      const owner = yield* takePartition()
      const [waiting, final] = yield* Effect.all([sampleRun({ seq: 1, scheduledAt: 1_500 }), sampleRun({ seq: 2 })])
      yield* journal.commit(batchOf(owner, { inserts: [waiting, final] }))
      yield* journal.commit(batchOf(owner, { finishes: [finishOf(final)] }))
      const client = yield* TestStore.ownClient

      const shown = yield* TestStore.query(
        client,
        `select state, queue, scheduled_at::text, finished_at > now() - interval '1 minute' as "justFinished"
         from orrery.all_runs order by id`
      )

      assert.deepStrictEqual(shown, [
        { state: "ready", queue: "mail", scheduled_at: "1970-01-01 00:00:01.5+00", justFinished: null },
        { state: "succeeded", queue: "mail", scheduled_at: "2023-11-14 22:13:20+00", justFinished: true }
      ])
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("fails, and does not die, when the database is not there", () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.freshDatabase
      const pools = PgPools.layer({ url })
      const error = yield* Effect.gen(function*() {
        const { read } = yield* PgPools.PgPools
        yield* Effect.promise(() => read.end())
        return yield* Effect.flip(PgMigrations.run)
      }).pipe(Effect.provide(Layer.fresh(pools)))

      assert.strictEqual(error._tag, "StoreUnavailable")
    }))
})
