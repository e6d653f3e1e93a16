/**
 * Schedules, what became of their ticks, and the runs they have promised.
 *
 * A schedule's definition and state are JSON text: only their actor reads them, whole. `next_at` is for people and for
 * counting.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const tables = `
create table orrery.schedule_partitions (
  partition integer primary key,
  epoch bigint not null check (epoch >= 1),
  owner text not null,
  taken_at timestamptz not null
);
comment on table orrery.schedule_partitions is 'who may write the schedules of a partition: the owner that knows its epoch';

-- Room for updates in place: a schedule is written with each of its ticks.
create table orrery.schedules (
  id text collate "C" primary key,
  partition integer not null,
  namespace text not null,
  next_at double precision,
  created_at double precision not null,
  lateness_ms double precision,
  definition text not null,
  state text not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index schedules_partition on orrery.schedules (partition, id);

create table orrery.schedule_ticks (
  schedule_id text collate "C" not null,
  first double precision not null,
  last double precision not null,
  count integer not null check (count >= 1),
  outcome text not null,
  reason text not null,
  run_id uuid,
  at double precision not null,
  primary key (schedule_id, first, reason)
);
comment on table orrery.schedule_ticks is 'what became of each tick: the run it made, or why it made none; times in ms since 1970';
create index schedule_ticks_at on orrery.schedule_ticks (at);

create table orrery.schedule_promised (
  run_id uuid primary key,
  partition integer not null,
  schedule_id text not null,
  nominal double precision not null,
  at double precision not null
);
comment on table orrery.schedule_promised is 'runs of ticks that their queues may not have yet; normally empty';
create index schedule_promised_partition on orrery.schedule_promised (partition, run_id);
`

export default Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(tables)
})
