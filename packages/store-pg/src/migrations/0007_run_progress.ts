/**
 * What runs tell while they run, beside them: runs that tell nothing have no row and pay nothing. A row stays when its run
 * moves to the history; `orrery.sweep_run_progress` deletes those whose run is nowhere any more.
 *
 * `trace`: the W3C traceparent of the span in which a run was enqueued.
 *
 * The ends of a queue's runs since an instant are found by a BRIN index: history is written in the order of `finished_at`, and
 * such an index costs its writers next to nothing. The function says so to the planner, as the pools of a node forbid it
 * bitmap scans.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const tables = `
create table orrery.run_progress (
  run_id uuid primary key,
  partition_id integer not null,
  lease bigint not null,
  lease_lines integer not null,
  attempt integer not null,
  updated_at double precision not null,
  progress text,
  progress_count integer not null,
  lines text not null,
  line_count integer not null,
  checkpoint text
) with (fillfactor = 70);
comment on table orrery.run_progress is 'what attempts have told: progress, the newest log lines, the checkpoint for the next attempt';

alter table orrery.runs add column trace text;

create index run_history_finished on orrery.run_history using brin (finished_at) with (pages_per_range = 32);
`

const functions = `
create function orrery.ends_since(ids integer[], since bigint, most integer)
returns table (id uuid, state smallint, finished_at bigint) language sql stable
set enable_bitmapscan = on set enable_sort = on as $$
  select h.id, h.state, h.finished_at from orrery.run_history h
  where h.finished_at >= since and h.partition_id = any(ids)
  order by h.finished_at, h.id limit most
$$;

-- At most so many at a time; gives how many it deleted. Rows told of lately may belong to runs on their way to the history.
create function orrery.sweep_run_progress(before double precision, most integer) returns integer language sql as $$
  with gone as (
    select p.run_id from orrery.run_progress p
    where p.updated_at < before
      and not exists (select from orrery.runs r where r.id = p.run_id)
      and not exists (select from orrery.run_history h where h.id = p.run_id)
    limit most for update skip locked
  ), deleted as (
    delete from orrery.run_progress p using gone where p.run_id = gone.run_id returning 1
  ) select count(*)::integer from deleted
$$;
`

export default Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(tables)
  yield* sql.unsafe(functions)
})
