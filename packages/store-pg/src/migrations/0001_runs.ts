/**
 * The first tables.
 *
 * Times of runs are milliseconds since 1970 by the database clock. Those an actor decides by are `double precision`,
 * the type of the numbers it holds: memory and index then order alike to the last bit, and node-postgres reads and
 * writes them without a conversion, which per column and row is the larger part of what a batch costs in node.
 * `orrery.all_runs` shows them as timestamptz.
 *
 * No foreign key from runs to partitions: the journal's fence proves the partition in the same statement, and the
 * check would cost every insert a second look.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const tables = `
create table orrery.cluster_settings (key text primary key, value jsonb not null);

create table orrery.nodes (
  node_id uuid primary key,
  runner_address text not null,
  data_address text not null,
  started_at timestamptz not null default now()
);

-- Half empty pages: a takeover updates in place.
create table orrery.partitions (
  id integer generated always as identity primary key,
  namespace text not null,
  queue text not null,
  partition integer not null check (partition >= 0),
  epoch bigint not null check (epoch >= 1),
  owner text not null,
  taken_at timestamptz not null,
  unique (namespace, queue, partition)
) with (fillfactor = 50);
comment on table orrery.partitions is 'who may write the runs of a partition: the owner that knows its epoch';

create table orrery.runs (
  id uuid primary key,
  partition_id integer not null,
  priority smallint not null,
  state smallint not null check (state between 0 and 4),
  attempt integer not null default 0,
  crashes integer not null default 0,
  seq bigint not null,
  lease bigint not null default 0,
  created_at double precision not null,
  scheduled_at double precision not null,
  order_key double precision not null,
  started_at double precision,
  task text not null,
  worker text,
  payload text not null,
  policy text not null,
  failure text
) with (
  -- Filled and emptied all day: cleaned by absolute numbers, not by a share of the rows it once had.
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
comment on table orrery.runs is 'runs that are not final; times in ms since 1970. For people: orrery.all_runs';
create index runs_ready on orrery.runs (partition_id, task, order_key, seq) where state = 2;
create index runs_timers on orrery.runs (partition_id, scheduled_at, seq) where state in (1, 4);
create index runs_running on orrery.runs (partition_id) where state = 3;

create table orrery.run_history (
  id uuid not null,
  partition_id integer not null,
  priority smallint not null,
  state smallint not null check (state between 5 and 8),
  attempt integer not null,
  crashes integer not null,
  seq bigint not null,
  created_at double precision not null,
  scheduled_at double precision not null,
  started_at double precision,
  finished_at bigint not null,
  task text not null,
  worker text,
  payload text not null,
  policy text not null,
  result text,
  failure text
) partition by range (finished_at);
comment on table orrery.run_history is 'final runs, one partition per day (UTC); prune by dropping partitions';
create index run_history_id on orrery.run_history (id);
-- Catches what no day was made for; normally empty.
create table orrery.run_history_default partition of orrery.run_history default;
`

const functions = `
create function orrery.state_name(code smallint) returns text language sql immutable parallel safe as $$
  select (array['blocked', 'scheduled', 'ready', 'running', 'retrying', 'succeeded', 'failed', 'cancelled', 'expired'])[code + 1]
$$;

-- Makes the partitions of yesterday, today and the coming days (UTC); gives how many were missing. Many may call it at once.
create function orrery.ensure_history_partitions(days integer) returns integer language plpgsql as $$
declare
  day date;
  name text;
  from_ms bigint;
  made integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('orrery.ensure_history_partitions', 0));
  -- Attaching waits for readers of the default partition, and the journal would wait behind it: rather fail, and try later.
  perform set_config('lock_timeout', '2s', true);
  for n in -1 .. days loop
    day := (now() at time zone 'UTC')::date + n;
    name := 'run_history_' || to_char(day, 'YYYYMMDD');
    from_ms := extract(epoch from day::timestamp at time zone 'UTC')::bigint * 1000;
    continue when to_regclass('orrery.' || name) is not null;
    execute format('create table orrery.%I (like orrery.run_history including defaults including constraints)', name);
    -- Rows that came before their day was made would forbid it.
    lock table orrery.run_history_default in share row exclusive mode;
    execute format('with moved as (
        delete from orrery.run_history_default where finished_at >= %1$s and finished_at < %2$s returning *
      ) insert into orrery.%3$I select * from moved', from_ms, from_ms + 86400000, name);
    execute format('alter table orrery.run_history attach partition orrery.%1$I for values from (%2$s) to (%3$s)',
      name, from_ms, from_ms + 86400000);
    made := made + 1;
  end loop;
  return made;
end
$$;
`

const views = `
create view orrery.all_runs as
  select r.id, p.namespace, p.queue, p.partition, r.task, orrery.state_name(r.state) as state, r.priority,
    to_timestamp(r.created_at / 1000) as created_at, to_timestamp(r.scheduled_at / 1000) as scheduled_at,
    to_timestamp(r.started_at / 1000) as started_at, null::timestamptz as finished_at,
    r.attempt, r.crashes, r.worker, r.payload, null::text as result, r.failure
  from orrery.runs r join orrery.partitions p on p.id = r.partition_id
  union all
  select h.id, p.namespace, p.queue, p.partition, h.task, orrery.state_name(h.state), h.priority,
    to_timestamp(h.created_at / 1000), to_timestamp(h.scheduled_at / 1000),
    to_timestamp(h.started_at / 1000), to_timestamp(h.finished_at / 1000.0),
    h.attempt, h.crashes, h.worker, h.payload, h.result, h.failure
  from orrery.run_history h join orrery.partitions p on p.id = h.partition_id;
`

export default Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(tables)
  yield* sql.unsafe(functions)
  yield* sql.unsafe(views)
})
