/**
 * Where does a run stay when it is final? Measures layouts on one server, with fsync on, in turns, in several rounds:
 *
 *   in place, HOT      stays in its table; no index knows the state, so that an update can stay on its page
 *   in place, partial  stays in its table; the index of ready runs is partial, so every update leaves its page's chain
 *   delete + append    leaves its table for a history that is partitioned by time
 *
 * Each takes 100,000 runs in, drains them in batches of 500 by the same kind of fenced statement, and prunes them, as
 * it must one day. Decision 0003.
 *
 *   node --import tsx packages/bench/src/storageLayout.ts        starts a PostgreSQL of its own, or uses DATABASE_URL
 */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { Config, Console, Effect, Option, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as path from "node:path"
import pg from "pg"

const runs = 100_000
const batchRows = 500
const rounds = 3

const runColumns = `id uuid primary key, partition_id integer not null, seq bigint not null, state smallint not null,
  attempt integer not null, created_at double precision not null, order_key double precision not null,
  started_at double precision, task text not null, worker text, payload text not null, policy text not null, failure text`

interface Layout {
  readonly name: string
  readonly tables: string
  /** After `fence` and `ended` (id, worker, started_at, result). */
  readonly finish: string
  /** Removes final runs and what they leave behind. */
  readonly prune: ReadonlyArray<string>
}

const updateInPlace = `update runs r
  set state = 5, attempt = attempt + 1, worker = e.worker, started_at = e.started_at, result = e.result,
    finished_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
  from ended e where r.id = e.id and r.partition_id in (select id from fence)`

const pruneInPlace = ["delete from runs where finished_at is not null", "vacuum runs"]

const layouts: ReadonlyArray<Layout> = [
  {
    name: "in place, HOT",
    tables: `create table runs (${runColumns}, result text, finished_at bigint) with (fillfactor = 70);
      create index runs_ready on runs (partition_id, task, order_key, seq);`,
    finish: updateInPlace,
    prune: pruneInPlace
  },
  {
    name: "in place, partial",
    tables: `create table runs (${runColumns}, result text, finished_at bigint) with (fillfactor = 70);
      create index runs_ready on runs (partition_id, task, order_key, seq) where state = 2;`,
    finish: updateInPlace,
    prune: pruneInPlace
  },
  {
    name: "delete + append",
    tables: `create table runs (${runColumns});
      create index runs_ready on runs (partition_id, task, order_key, seq) where state = 2;
      create table run_history (${runColumns.replace(" primary key", "")}, result text, finished_at bigint not null)
        partition by range (finished_at);
      create index run_history_id on run_history (id);
      create table run_history_now partition of run_history default;`,
    finish: `delete from runs r using ended e where r.id = e.id and r.partition_id in (select id from fence)
      returning r.id, r.partition_id, r.seq, 5, r.attempt + 1, r.created_at, r.order_key, e.started_at, r.task, e.worker,
        r.payload, r.policy, r.failure, e.result`,
    prune: ["vacuum runs", "drop table run_history_now"]
  }
]

const fence = "fence as materialized (select p.id from partitions p where p.id = $1 and p.epoch = $2 for share)"
const ended = `ended as materialized (
  select * from unnest($3::uuid[], $4::text[], $5::float8[], $6::text[]) e(id, worker, started_at, result)
)`

const finishText = (layout: Layout) =>
  layout.finish.startsWith("delete")
    ? `with ${fence}, ${ended}, gone as (${layout.finish})
       insert into run_history select gone.*, (extract(epoch from clock_timestamp()) * 1000)::bigint from gone`
    : `with ${fence}, ${ended} ${layout.finish}`

const insertText = `with ${fence}
  insert into runs (id, partition_id, seq, state, attempt, created_at, order_key, task, payload, policy)
  select i.id, $1, i.seq, 2, 0, 1.7e12, i.seq, 'mail.send', i.payload, i.policy
  from unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[]) i(id, seq, payload, policy)
  where (select count(*) from fence) = 1
  on conflict do nothing`

const payload = JSON.stringify({
  to: "someone@example.org",
  subject: "Your digest",
  template: "weekly",
  locale: "en",
  n: 42
})
const policy = JSON.stringify({
  retry: { _tag: "exponential", maxAttempts: 5, jitter: 0.2, baseMs: 1_000, factor: 2, maxMs: 300_000 },
  timeoutMs: 0
})

interface Measured {
  readonly insertPerSecond: number
  readonly drainPerSecond: number
  /** Of insert and drain together. */
  readonly walBytesPerRun: number
  readonly pruneMs: number
  readonly pruneWalBytesPerRun: number
  readonly megabytes: number
  readonly hotShare: number
}

const measure = async (client: pg.Client, layout: Layout): Promise<Measured> => {
  await client.query("drop table if exists runs; drop table if exists run_history")
  await client.query(layout.tables)
  await client.query("checkpoint")
  const walBefore = await walBytes(client)
  const ids = Array.from({ length: runs }, () => unsafeMakeRunId(1_700_000_000_000))
  const inserting = performance.now()
  for (let at = 0; at < runs; at += batchRows) {
    const part = ids.slice(at, at + batchRows)
    await client.query({
      name: `insert ${layout.name}`,
      text: insertText,
      values: [1, 1, part, part.map((_, n) => at + n), part.map(() => payload), part.map(() => policy)]
    })
  }
  const draining = performance.now()
  for (let at = 0; at < runs; at += batchRows) {
    const part = ids.slice(at, at + batchRows)
    await client.query({
      name: `finish ${layout.name}`,
      text: finishText(layout),
      values: [
        1,
        1,
        part,
        part.map(() => "node-1/worker-1"),
        part.map(() => 1.7e12 + 0.25),
        part.map(() => `{"sent":1}`)
      ]
    })
  }
  const done = performance.now()
  const walDrained = await walBytes(client)
  await client.query("select pg_stat_force_next_flush()")
  const megabytes = await number(
    client,
    "select sum(pg_total_relation_size(oid))::float8 / 1e6 as n from pg_class where relname in ('runs', 'run_history_now')"
  )
  const hotShare = await number(
    client,
    "select coalesce(n_tup_hot_upd::float8 / nullif(n_tup_upd, 0), 0) as n from pg_stat_user_tables where relname = 'runs'"
  )
  const pruning = performance.now()
  for (const statement of layout.prune) await client.query(statement)
  return {
    insertPerSecond: runs / (draining - inserting) * 1_000,
    drainPerSecond: runs / (done - draining) * 1_000,
    walBytesPerRun: (walDrained - walBefore) / runs,
    pruneMs: performance.now() - pruning,
    pruneWalBytesPerRun: (await walBytes(client) - walDrained) / runs,
    megabytes,
    hotShare
  }
}

const walBytes = (client: pg.Client) =>
  number(client, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as n")

const number = async (client: pg.Client, text: string): Promise<number> =>
  Number((await client.query<{ n: number }>(text)).rows[0]?.n)

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
const spread = (values: ReadonlyArray<number>): string => {
  const shown = (value: number) => Math.round(value).toLocaleString("en")
  return `${shown(median(values))} [${shown(Math.min(...values))}..${shown(Math.max(...values))}]`
}

const table = (measured: ReadonlyMap<Layout, ReadonlyArray<Measured>>): string => {
  const rows = [...measured].map(([layout, all]) => {
    const of = (pick: (one: Measured) => number) => all.map(pick)
    return [
      layout.name,
      spread(of((one) => one.insertPerSecond)),
      spread(of((one) => one.drainPerSecond)),
      Math.round(median(of((one) => one.walBytesPerRun))),
      `${Math.round(median(of((one) => one.megabytes)))} MB`,
      `${Math.round(median(of((one) => one.hotShare)) * 100)} %`,
      `${spread(of((one) => one.pruneMs))} ms`,
      Math.round(median(of((one) => one.pruneWalBytesPerRun)))
    ]
  })
  const head = [
    "layout",
    "insert runs/s",
    "drain runs/s",
    "WAL bytes/run",
    "tables + indexes after",
    "HOT updates",
    "prune",
    "its WAL bytes/run"
  ]
  return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n")
}

const connect = (url: Redacted.Redacted<string>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: Redacted.value(url), application_name: "orrery-bench" })
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )

const server = Effect.flatMap(
  Config.option(Config.redacted("DATABASE_URL")),
  Option.match({
    onSome: (url) => Effect.succeed({ url }),
    onNone: () =>
      EmbeddedPostgres.start({ dataDir: path.resolve(import.meta.dirname, "../../../.orrery/bench/pg"), durable: true })
  })
)

const main = Effect.gen(function*() {
  const { url } = yield* server
  const name = `orrery_bench_${randomBytes(4).toString("hex")}`
  const database = yield* Effect.acquireRelease(
    EmbeddedPostgres.createDatabase({ url }, name),
    () => Effect.orDie(EmbeddedPostgres.dropDatabase({ url }, name))
  )
  const client = yield* connect(database)
  yield* Effect.promise(() =>
    client.query(
      `create table partitions (id integer primary key, epoch bigint not null); insert into partitions values (1, 1);
      set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off; set enable_mergejoin = off`
    )
  )
  const settings = yield* Effect.promise(() =>
    client.query<{ text: string }>(
      `select concat('PostgreSQL ', current_setting('server_version'), ', fsync ', current_setting('fsync'),
         ', synchronous_commit ', current_setting('synchronous_commit')) as text`
    )
  )
  yield* Console.log(
    `${settings.rows[0]!.text}\n${runs} runs, batches of ${batchRows}, ${rounds} rounds, one connection\n`
  )
  const measured = new Map<Layout, Array<Measured>>(layouts.map((layout) => [layout, []]))
  for (let round = 0; round < rounds; round++) {
    // Each goes first once, so that none profits from its place.
    for (let at = 0; at < layouts.length; at++) {
      const layout = layouts[(at + round) % layouts.length]!
      measured.get(layout)!.push(yield* Effect.promise(() => measure(client, layout)))
    }
  }
  yield* Console.log(table(measured))
})

await Effect.runPromise(Effect.scoped(main))
