/**
 * History by how long it is kept, then by time: whole partitions are dropped (docs/decisions/0026).
 *
 *   run_history                    by finished_at, as before
 *     run_history_20261127 ...     days of the layout before: dropped once the longest retention is over
 *     run_history_kept             from the first day on that had no end yet, by (kept_days, finished_at)
 *       run_history_7d_20261128    each as wide as a fraction of its period
 *       run_history_unsorted_...   of nodes of earlier releases, and of transactions that know of no setting
 *       run_history_kept_default   what no partition was made for; normally empty
 *
 * No row moves and none is looked at, but those that wait in the default partition: it is normally empty.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const column = `
alter table orrery.run_history add column kept_days smallint default -1;
comment on column orrery.run_history.kept_days is
  'how long it is kept at least; 0: for ever; -1: as long as the longest that is said for all queues';
comment on table orrery.run_history is
  'final runs, by how long they are kept and when they ended (UTC); orrery.drop_history_partition prunes them';
`

const functions = `
-- The layout: days that runs are kept (-1: not known), how the partitions of those are called, and the days that each holds.
create function orrery.history_classes() returns table (days integer, name text, width integer)
language sql immutable as $$
  values (1, 'run_history_1d', 1), (7, 'run_history_7d', 1), (30, 'run_history_30d', 5), (90, 'run_history_90d', 15),
    (365, 'run_history_365d', 60), (0, 'run_history_forever', 90), (-1, 'run_history_unsorted', 5)
$$;

-- When a partition begins (FROM) or ends (TO); null: never, or it is a default partition.
create function orrery.history_bound(partition regclass, side text) returns bigint language sql stable as $$
  select substring(pg_get_expr(c.relpartbound, c.oid) from side || ' \\((?:[^,()]*, )?''?(-?[0-9]+)''?\\)')::bigint
  from pg_class c where c.oid = partition
$$;

create function orrery.period_days(period text) returns smallint language sql immutable parallel safe as $$
  select case period when '1 day' then 1 when '7 days' then 7 when '30 days' then 30 when '90 days' then 90
    when '365 days' then 365 when 'forever' then 0 else -1 end::smallint
$$;

-- Periods that runs may end with from now on. Each partition is a little work for every commit of new runs: there are none for
-- the others. -1: nodes of an earlier release may be at work, as long as there are days of the layout before.
create function orrery.history_days_used() returns setof integer language sql stable as $$
  select distinct orrery.period_days(said.period)::integer from (
    values ('7 days'), ('30 days')
    union all select r.value from orrery.cluster_settings s, jsonb_each_text(s.value) r where s.key = 'retention'
    union all select r.value from orrery.queue_settings s, jsonb_each_text(s.settings::jsonb -> 'retention') r
    union all select r.value from orrery.queue_settings s, jsonb_each_text(s.settings::jsonb #> '{declared,retention}') r
  ) said(period)
  union select -1 where exists (
    select from pg_inherits i where i.inhparent = 'orrery.run_history'::regclass and orrery.history_bound(i.inhrelid, 'TO') is not null
  )
$$;

-- Days for which a run that ends in this state is kept, as said of its queue or for all; -1: nobody has said anything.
-- By the rights of its owner, for those who end runs in transactions of their own may not read the settings.
create function orrery.kept_days(of_partition integer, of_state smallint) returns smallint language sql stable
security definer set search_path = pg_catalog as $$
  select orrery.period_days(coalesce(
    s.settings::jsonb #>> array['retention', n.name],
    s.settings::jsonb #>> array['declared', 'retention', n.name],
    (select value ->> n.name from orrery.cluster_settings where key = 'retention')))
  from (select orrery.state_name(of_state) as name) n
  left join orrery.partitions p on p.id = of_partition
  left join orrery.queue_settings s on s.namespace = p.namespace and s.queue = p.queue
$$;

-- Makes the partitions of today and tomorrow (UTC), and those that rows wait for; gives how many were missing. Many may call it
-- at once.
create or replace function orrery.ensure_history_partitions(days integer) returns integer language plpgsql as $$
declare
  day_ms constant bigint := 86400000;
  now_ms bigint := floor(extract(epoch from now()) * 1000)::bigint;
  -- Nodes of an earlier release ask for a week.
  ahead integer := least(days, 1);
  part record;
  made integer := 0;
  label text;
begin
  perform pg_advisory_xact_lock(hashtextextended('orrery.ensure_history_partitions', 0));
  -- Attaching waits for readers of the default partition, and the journal would wait behind it: rather fail, and try later.
  perform set_config('lock_timeout', '500ms', true);
  for part in
    select distinct c.days as kept, c.name, slot * c.width * day_ms as from_ms, (slot + 1) * c.width * day_ms as to_ms
    from orrery.history_classes() c cross join lateral (
      select generate_series(now_ms / (c.width * day_ms), (now_ms + ahead * day_ms) / (c.width * day_ms))
      where c.days in (select orrery.history_days_used())
      union all (
        select h.finished_at / (c.width * day_ms) from orrery.run_history_kept_default h where h.kept_days = c.days limit 100000
      )
    ) needed(slot) order by from_ms limit 1000
  loop
    label := part.name || '_' || to_char(to_timestamp(part.from_ms / 1000) at time zone 'UTC', 'YYYYMMDD');
    continue when to_regclass('orrery.' || label) is not null;
    execute format('create table orrery.%I (like orrery.run_history including defaults including constraints)', label);
    -- Rows that came before their partition was made would forbid it.
    lock table orrery.run_history_kept_default in share row exclusive mode;
    execute format('with moved as (
        delete from orrery.run_history_kept_default
        where kept_days = %1$s and finished_at >= %2$s and finished_at < %3$s returning *
      ) insert into orrery.%4$I select * from moved', part.kept, part.from_ms, part.to_ms, label);
    execute format('alter table orrery.run_history_kept attach partition orrery.%1$I for values from (%2$s, %3$s) to (%2$s, %4$s)',
      label, part.kept, part.from_ms, part.to_ms);
    made := made + 1;
  end loop;
  return made;
end
$$;

-- Drops the partition whose time was over first, if there is one: its period has passed since its last row ended, or it has
-- none and takes none any more. One at a time: to be called until it gives nothing. Of many that call it at once one does it.
create function orrery.drop_history_partition(unsorted_days integer) returns table (name text, bytes bigint)
language plpgsql as $$
declare
  day_ms constant bigint := 86400000;
  now_ms bigint := floor(extract(epoch from now()) * 1000)::bigint;
  each record;
  is_over boolean;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('orrery.ensure_history_partitions', 0)) then
    return;
  end if;
  -- The journal waits behind whoever waits for a reader.
  perform set_config('lock_timeout', '500ms', true);
  for each in
    select h.relname, h.until, h.days from (
      select c.relname, orrery.history_bound(c.oid, 'TO') as until,
        case when k.days = -1 then unsorted_days else k.days end as days
      from (select t.days, t.name from orrery.history_classes() t union all values (-1, 'run_history')) k
      join pg_class c on c.relname ~ ('^' || k.name || '_[0-9]{8}$') and c.relkind = 'r'
      join pg_inherits i on i.inhrelid = c.oid
        and i.inhparent in ('orrery.run_history'::regclass, 'orrery.run_history_kept'::regclass)
    ) h where h.until <= now_ms - day_ms order by h.until
  loop
    is_over := each.days > 0 and each.until <= now_ms - each.days * day_ms;
    if is_over is not true then
      execute format('select not exists (select from orrery.%I)', each.relname) into is_over;
    end if;
    if is_over then
      name := each.relname;
      bytes := pg_total_relation_size(('orrery.' || each.relname)::regclass);
      execute format('drop table orrery.%I', each.relname);
      return next;
      return;
    end if;
  end loop;
end
$$;
`

const layout = `
create table orrery.run_history_kept (like orrery.run_history including defaults including constraints)
  partition by range (kept_days, finished_at);
create table orrery.run_history_kept_default partition of orrery.run_history_kept default;
do $$
declare
  day_ms constant bigint := 86400000;
  now_ms bigint := floor(extract(epoch from now()) * 1000)::bigint;
  day record;
  is_empty boolean;
  start_ms bigint;
begin
  -- Days to come, of the layout before: as a rule nothing has ended in them.
  for day in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'orrery.run_history'::regclass and orrery.history_bound(c.oid, 'FROM') > now_ms
    order by orrery.history_bound(c.oid, 'FROM') desc
  loop
    execute format('select not exists (select from orrery.%I)', day.relname) into is_empty;
    exit when not is_empty;
    execute format('drop table orrery.%I', day.relname);
  end loop;
  select max(orrery.history_bound(i.inhrelid, 'TO')) into start_ms
  from pg_inherits i where i.inhparent = 'orrery.run_history'::regclass;
  with moved as (
    delete from orrery.run_history_default where start_ms is null or finished_at >= start_ms returning *
  ) insert into orrery.run_history_kept select * from moved;
  execute format('alter table orrery.run_history attach partition orrery.run_history_kept for values from (%s) to (maxvalue)',
    coalesce(start_ms::text, 'minvalue'));
end
$$;
`

export default Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(column)
  yield* sql.unsafe(functions)
  yield* sql.unsafe(layout)
})
