/**
 * Starts that the rows of their runs do not show: one row for those of a commit, overwritten by later ones (`Rolls` in core).
 *
 * What a roll says goes into the rows of its runs where the epoch is raised, by a trigger: so a node of an earlier release, which
 * knows nothing of rolls, takes over as well. By then the row of the partition is locked, nothing of the old owner is under way, and each statement here
 * sees all that it has committed.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const text = `
create table orrery.run_starts (
  partition_id integer not null,
  slot integer not null,
  ids uuid[] not null,
  attempts integer[] not null,
  leases bigint[] not null,
  started_at double precision[] not null,
  -- Of each start: its place among the workers, from 0.
  worker_at integer[] not null,
  workers jsonb not null,
  primary key (partition_id, slot)
) with (
  -- Few rows, each overwritten all the time, and as large as some hundred starts make it.
  fillfactor = 50, toast_tuple_target = 8160,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);
comment on table orrery.run_starts is 'attempts that have begun and that orrery.runs may not show yet, until the next take-over';

create function orrery.show_starts() returns trigger language plpgsql as $$
begin
  with gone as (
    delete from orrery.run_starts where partition_id = new.id
    returning ids, attempts, leases, started_at, worker_at, workers
  ), starts as (
    select distinct on (s.id) s.*, gone.workers ->> s.worker_at as worker
    from gone cross join unnest(gone.ids, gone.attempts, gone.leases, gone.started_at, gone.worker_at)
      s(id, attempt, lease, started_at, worker_at)
    order by s.id, s.lease desc
  )
  update orrery.runs r
  set state = 3, attempt = s.attempt, lease = s.lease, started_at = s.started_at, worker = s.worker
  from starts s
  where r.id = s.id and r.id = any(array(select id from starts)) and r.partition_id = new.id and r.lease < s.lease;
  return null;
end
$$;

create trigger show_starts after update of epoch on orrery.partitions
  for each row execute function orrery.show_starts();
`

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
