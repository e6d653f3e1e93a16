import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Inbox } from "@orrery/core/Inbox"
import { Journal } from "@orrery/core/Journal"
import { dayMs } from "@orrery/core/Retention"
import { RunReader } from "@orrery/core/RunReader"
import * as PgHistory from "@orrery/store-pg/PgHistory"
import * as PgInbox from "@orrery/store-pg/PgInbox"
import * as PgQueueSettings from "@orrery/store-pg/PgQueueSettings"
import { QueueSettingsStore } from "@orrery/core/QueueSettingsStore"
import { HistoryAge, retentionContract } from "@orrery/testing/retentionContract"
import { batchOf, finishOf, newRunId, samplePartition, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Duration, Effect, Layer } from "effect"
import { codes } from "../src/internal/states.js"
import historyRetention from "../src/migrations/0009_history_retention.js"

const upkeep = Effect.zipRight(PgHistory.ensurePartitions, PgHistory.dropPartitions())

/** Time passes for rows by moving them back: to the partitions of that time, once those are made. */
const age = Layer.effect(
  HistoryAge,
  Effect.map(SqlClient.SqlClient, (sql) =>
    HistoryAge.of({
      pass: (ms) =>
        ms === 0
          ? Effect.void
          : Effect.orDie(Effect.asVoid(sql`update orrery.run_history set finished_at = finished_at - ${ms}::bigint`)),
      upkeep: upkeep.pipe(Effect.provideService(SqlClient.SqlClient, sql), Effect.orDie, Effect.asVoid)
    }))
)
retentionContract("postgres", Layer.provideMerge(age, TestStore.layer))

const partitionsOf = (table: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql<{ name: string }>`select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = ${`orrery.${table}`}::regclass order by 1`
  ).pipe(
    Effect.map((rows) => rows.map(({ name }) => name))
  )

const whereIs = (task: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ name: string }>`select tableoid::regclass::text as name from orrery.run_history where task = ${task}`
  ).pipe(
    Effect.map((rows) => rows.map(({ name }) => name.replace("orrery.", "")))
  )

const insert = (task: string, finishedAt: number, keptDays: number) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql`insert into orrery.run_history (id, partition_id, priority, state, attempt, crashes, seq, created_at,
      scheduled_at, finished_at, task, payload, policy, kept_days)
      values (gen_random_uuid(), 1, 5, 5, 1, 0, 1, 0, 0, ${
        Math.floor(finishedAt)
      }::bigint, ${task}, '{}', '{}', ${keptDays}::smallint)`
  )

const startOf = (now: number, days: number) => Math.floor(now / (days * dayMs)) * days * dayMs
const dateOf = (ms: number) => new Date(ms).toISOString().slice(0, 10).replaceAll("-", "")

describe.concurrent("PgHistory", () => {
  it.scopedLive("puts final runs where those of the same retention and time are", () =>
    Effect.gen(function*() {
      yield* PgHistory.record({ succeeded: "1 day", failed: "90 days", cancelled: "365 days", expired: "forever" })
      yield* PgHistory.ensurePartitions
      const journal = yield* Journal
      const owner = yield* takePartition()
      const kept = [[1, "1d", 1], [7, "7d", 1], [30, "30d", 5], [90, "90d", 15], [365, "365d", 60], [
        0,
        "forever",
        90
      ]] as const
      const runs = yield* Effect.forEach(kept, ([days], at) => sampleRun({ seq: at + 1, task: `kept-${days}` }))
      const old = yield* sampleRun({ seq: 99, task: "old-node" })
      yield* journal.commit(batchOf(owner, { inserts: [...runs, old] }))
      const { now } = yield* journal.commit(
        batchOf(owner, {
          finishes: [...runs.map((run, at) => finishOf(run, { keptDays: kept[at]![0] })), finishOf(old)]
        })
      )

      for (const [days, name, width] of kept) {
        assert.deepStrictEqual(yield* whereIs(`kept-${days}`), [`run_history_${name}_${dateOf(startOf(now, width))}`])
      }
      assert.deepStrictEqual(yield* whereIs("old-node"), ["run_history_kept_default"])
      yield* PgHistory.ensurePartitions
      assert.deepStrictEqual(yield* whereIs("old-node"), [`run_history_unsorted_${dateOf(startOf(now, 5))}`])
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("makes missing partitions, moves early rows into them, many nodes at once", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { now } = yield* takePartition()
      const tomorrow = startOf(now, 1) + dayMs
      const name = `run_history_7d_${dateOf(tomorrow)}`
      yield* sql.unsafe(`drop table orrery.${name}`)
      yield* insert("early", tomorrow + 1, 7)
      const before = yield* whereIs("early")

      const made = yield* Effect.all(Array.from({ length: 4 }, () => PgHistory.ensurePartitions), {
        concurrency: "unbounded"
      })

      assert.deepStrictEqual(before, ["run_history_kept_default"])
      assert.deepStrictEqual(made.toSorted(), [0, 0, 0, 1])
      assert.deepStrictEqual(yield* whereIs("early"), [name])
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("drops what is over, whole, whoever does it, and tells what it took", () =>
    Effect.gen(function*() {
      const { now } = yield* takePartition()
      const ago = (days: number) => startOf(now, 1) - days * dayMs + 1
      yield* insert("over", ago(9), 7)
      yield* insert("kept", ago(6), 7)
      yield* insert("unknown", ago(36), -1)
      yield* insert("unknown-kept", ago(29), -1)
      yield* insert("ever", ago(4_000), 0)
      yield* PgHistory.ensurePartitions

      const dropped = yield* Effect.all(Array.from({ length: 4 }, () => PgHistory.dropPartitions()), {
        concurrency: "unbounded"
      })

      const all = dropped.flat()
      assert.deepStrictEqual(all.map(({ name }) => name).toSorted(), [
        `run_history_7d_${dateOf(ago(9))}`,
        `run_history_unsorted_${dateOf(startOf(ago(36), 5))}`
      ])
      assert.isTrue(all.every(({ bytes }) => bytes >= 8_192))
      for (const [task, count] of Object.entries({ over: 0, kept: 1, unknown: 0, "unknown-kept": 1, ever: 1 })) {
        assert.strictEqual((yield* whereIs(task)).length, count, task)
      }
      assert.deepStrictEqual(
        yield* PgHistory.dropPartitions({ failed: "forever", succeeded: "1 day" }),
        [],
        "one state is kept for ever: what is not known is, too"
      )
      assert.deepStrictEqual(
        (yield* PgHistory.dropPartitions({
          failed: "1 day",
          cancelled: "1 day",
          expired: "1 day",
          succeeded: "7 days"
        }))
          .map(({ name }) => name),
        [`run_history_unsorted_${dateOf(startOf(ago(29), 5))}`]
      )
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("waits for a reader of a partition for half a second at most, and drops it later", () =>
    Effect.gen(function*() {
      const { now } = yield* takePartition()
      const client = yield* TestStore.ownClient
      yield* insert("over", now - 9 * dayMs, 7)
      yield* PgHistory.ensurePartitions
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "select count(*) from orrery.run_history")

      const [took, error] = yield* Effect.timed(Effect.flip(PgHistory.dropPartitions()))
      yield* TestStore.query(client, "commit")
      const later = yield* PgHistory.dropPartitions()

      assert.match(error.message, /lock timeout/)
      // The reader reads on until it is told of it.
      assert.isBelow(Duration.toMillis(took), 20_000)
      assert.strictEqual(later.length, 1)
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("knows what was said of a queue also where runs end without its owner", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const settings = yield* QueueSettingsStore
      const inbox = yield* Inbox
      const partition = samplePartition()
      const owner = yield* takePartition(partition)
      const days = (state: "succeeded" | "failed" | "expired") =>
        Effect.map(
          sql<{ days: number }>`select orrery.kept_days(${owner.partitionId}, ${codes[state]}::smallint) as days`,
          ([row]) => row!.days
        )
      const none = yield* days("failed")
      yield* PgHistory.record({ failed: "90 days" })
      const said = { pausedKeys: [], override: {}, retention: { failed: "365 days" } } as const
      yield* settings.save({
        ...partition,
        revision: 1,
        changedAt: null,
        changedBy: "ann",
        settings: { ...said, declared: { version: 1, limits: {}, retention: { failed: "1 day", expired: "forever" } } }
      })

      assert.strictEqual(none, -1)
      assert.deepStrictEqual([yield* days("succeeded"), yield* days("failed"), yield* days("expired")], [7, 365, 0])
      const id = yield* newRunId
      yield* sql`insert into orrery.inbox (id, namespace, queue, task, payload)
        values (${id}, ${partition.namespace}, ${partition.queue}, 'refused', '{}')`
      yield* inbox.refuse(owner, [{ id, failure: `{"kind":"undecodable","tag":"InvalidRequest","message":"no"}` }])
      // There since the setting was saved.
      assert.match((yield* whereIs("refused"))[0]!, /^run_history_365d_/)
    }).pipe(
      Effect.provide(Layer.mergeAll(PgInbox.layer, PgQueueSettings.layer).pipe(Layer.provideMerge(TestStore.layer)))
    ))
})

describe.concurrent("a history of before it was laid out by retention", () => {
  /** What 0009 has made, taken back: as it was, with rows in it. */
  const before = (sql: SqlClient.SqlClient, today: number) =>
    Effect.gen(function*() {
      yield* sql.unsafe(`alter table orrery.run_history detach partition orrery.run_history_kept;
        drop table orrery.run_history_kept cascade;
        drop function orrery.history_classes, orrery.history_bound, orrery.history_days_used, orrery.period_days,
          orrery.kept_days, orrery.drop_history_partition, orrery.ensure_history_partitions;
        alter table orrery.run_history drop column kept_days;
        create function orrery.ensure_history_partitions(days integer) returns integer language sql as 'select 0'`)
      for (const n of [-40, -1, 0, 1, 2]) {
        const from = today + n * dayMs
        yield* sql.unsafe(`create table orrery.run_history_${dateOf(from)} partition of orrery.run_history
          for values from (${from}) to (${from + dayMs})`)
      }
      yield* sql.unsafe(
        `insert into orrery.run_history (id, partition_id, priority, state, attempt, crashes, seq, created_at,
          scheduled_at, finished_at, task, payload, policy)
        select gen_random_uuid(), 1, 5, 5, 1, 0, n, 0, 0, ${today} + n::bigint * ${dayMs} + 1, 'day' || n, '{}', '{}'
        from unnest(array[-40, -1, 0, 9]) n`
      )
    })

  /** As `PgMigrations.run` does it, where it is the next one. */
  const migrate = Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql.withTransaction(Effect.zipRight(historyRetention, PgHistory.makeMissing))
  )

  it.scopedLive("keeps its rows and goes on, with nodes of both releases, and drops days by the longest retention", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const journal = yield* Journal
      const reader = yield* RunReader
      const owner = yield* takePartition()
      const today = startOf(owner.now, 1)
      yield* before(sql, today)
      const old = yield* partitionsOf("run_history")

      yield* migrate

      const day = (n: number) => `run_history_${dateOf(today + n * dayMs)}`
      assert.includeMembers([...old], [-40, -1, 0, 1, 2].map(day))
      assert.deepStrictEqual(
        yield* partitionsOf("run_history"),
        [...[-40, -1, 0].map(day), "run_history_default", "run_history_kept"].toSorted(),
        "days that had no end yet have gone"
      )
      assert.deepStrictEqual(
        yield* Effect.forEach([-40, -1, 0, 9], (n) => whereIs(`day${n}`)),
        [[day(-40)], [day(-1)], [day(0)], [`run_history_unsorted_${dateOf(startOf(today + 9 * dayMs, 5))}`]]
      )
      // An old node writes as it did, and asks for days.
      yield* sql.unsafe(
        `insert into orrery.run_history (id, partition_id, priority, state, attempt, crashes, seq, created_at,
          scheduled_at, finished_at, task, payload, policy)
        values (gen_random_uuid(), 1, 5, 5, 1, 0, 5, 0, 0, ${today + dayMs + 5}, 'old', '{}', '{}')`
      )
      yield* sql`select orrery.ensure_history_partitions(7)`
      assert.match((yield* whereIs("old"))[0]!, /^run_history_unsorted_20/)
      const run = yield* sampleRun()
      yield* journal.commit(batchOf(owner, { inserts: [run] }))
      yield* journal.commit(batchOf(owner, { finishes: [finishOf(run, { keptDays: 7 })] }))
      assert.strictEqual((yield* reader.find(run.id))?.state, "succeeded")
      const again = yield* journal.commit(batchOf(owner, { resends: [{ ...run, seq: 2 }] }))
      assert.deepStrictEqual(again.duplicates, new Set([run.id]))

      const dropped = yield* PgHistory.dropPartitions()

      assert.deepStrictEqual(dropped.map(({ name }) => name), [day(-40)])
      assert.deepStrictEqual((yield* whereIs("day-1")).length, 1)
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("is migrated while runs end", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const journal = yield* Journal
      const owner = yield* takePartition()
      yield* before(sql, startOf(owner.now, 1))
      const runs = yield* Effect.forEach(Array.from({ length: 200 }, (_, n) => n + 1), (seq) => sampleRun({ seq }))
      yield* journal.commit(batchOf(owner, { inserts: runs }))
      const ending = sql.unsafe(`with gone as (delete from orrery.runs returning id)
        insert into orrery.run_history (id, partition_id, priority, state, attempt, crashes, seq, created_at, scheduled_at,
          finished_at, task, payload, policy)
        select id, 1, 5, 5, 1, 0, 1, 0, 0, floor(extract(epoch from clock_timestamp()) * 1000)::bigint, 'ended', '{}', '{}'
        from gone`)

      yield* Effect.all([migrate, ending], { concurrency: "unbounded" })

      assert.strictEqual((yield* whereIs("ended")).length, 200)
    }).pipe(Effect.provide(TestStore.layer)))
})
