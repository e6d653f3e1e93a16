/**
 * Requests that applications commit in their own transactions, until the owners of their queues take them.
 *
 * `partition` is null until the owner of the queue's first partition has found it out, where a queue has several. `policy`
 * null: the default one. `more`: what requests of later releases say beyond these columns, as JSON.
 *
 * `orrery.enqueue` needs no rights but `usage` on the schema and `insert` on the table.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

const name = (column: string) => `${column} text not null check (${column} ~ '^[A-Za-z0-9_.:/-]{1,200}$')`

const table = `
create table orrery.inbox (
  id uuid primary key check (id::text ~ '^.{14}7.{4}[89ab]'),
  place bigint generated always as identity,
  partition integer check (partition >= 0),
  priority smallint not null default 5 check (priority between 0 and 9),
  created_at double precision not null default extract(epoch from clock_timestamp()) * 1000,
  due_at double precision check (due_at between 0 and 8.64e15),
  ${name("namespace")},
  ${name("queue")},
  -- With the version of its payload, where that is not the first one.
  task text not null check (length(task) <= 200 and task ~ '^[A-Za-z0-9_.:/-]+(@[1-9][0-9]{0,3})?$'),
  payload text not null check (octet_length(payload) <= 16777216),
  policy text,
  keys text,
  more text,
  check (length(namespace) + length(queue) <= 243)
) with (
  -- Filled and emptied all day, as orrery.runs.
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
comment on table orrery.inbox is 'committed requests that no owner has taken yet; normally empty';
create index inbox_partitions on orrery.inbox (namespace, queue, (coalesce(partition, 0)), place);
`

const functions = `
-- A UUID of version 7: milliseconds since 1970, then random bits.
create function orrery.new_run_id() returns uuid language sql volatile parallel safe as $$
  select encode(set_bit(set_bit(
    overlay(uuid_send(gen_random_uuid())
      placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
    52, 1), 53, 1), 'hex')::uuid
$$;

-- By the rights of its owner, for those who call it may not read the settings.
create function orrery.payload_bytes_max() returns bigint language sql stable security definer
set search_path = pg_catalog as $$
  select coalesce((select (value #>> '{}')::bigint from orrery.cluster_settings where key = 'payloadBytesMax'), 262144)
$$;

create function orrery.enqueue(
  queue text,
  task text,
  payload jsonb default null,
  namespace text default 'default',
  priority integer default 5,
  delay interval default null,
  at timestamptz default null,
  keys jsonb default null,
  policy jsonb default null
) returns uuid language plpgsql volatile as $$
declare
  run_id uuid := orrery.new_run_id();
  now_ms double precision := extract(epoch from clock_timestamp()) * 1000;
  due double precision;
  bytes bigint := octet_length(coalesce(enqueue.payload, 'null')::text);
  -- The cluster's own, once it has one; readable by all who may call this.
  bytes_max bigint := orrery.payload_bytes_max();
  problem text;
begin
  problem := case
    when enqueue.queue is null or enqueue.queue !~ '^[A-Za-z0-9_.:/-]{1,200}$'
      then format('queue must be 1 to 200 characters of A-Z a-z 0-9 _ . : / -, got %L', left(enqueue.queue, 200))
    when enqueue.task is null or length(enqueue.task) > 200 or enqueue.task !~ '^[A-Za-z0-9_.:/-]+(@[1-9][0-9]{0,3})?$'
      then format('task must be 1 to 200 characters of A-Z a-z 0-9 _ . : / - (and @version), got %L', left(enqueue.task, 200))
    when enqueue.namespace is null or enqueue.namespace !~ '^[A-Za-z0-9_.:/-]{1,200}$'
      then format('namespace must be 1 to 200 characters of A-Z a-z 0-9 _ . : / -, got %L', left(enqueue.namespace, 200))
    when length(enqueue.namespace) + length(enqueue.queue) > 243
      then format('namespace and queue must be at most 243 characters together, got %s',
        length(enqueue.namespace) + length(enqueue.queue))
    when enqueue.priority is null or enqueue.priority not between 0 and 9
      then format('priority must be an integer from 0 to 9, got %L', enqueue.priority)
    when enqueue.delay is not null and enqueue.at is not null
      then format('at must be absent when delay is given, got %L', enqueue.at)
    when enqueue.delay < interval '0' or enqueue.delay > interval '3660 days'
      then format('delay must be 0 to 3660 days, got %L', enqueue.delay)
    when enqueue.at = 'infinity' or enqueue.at = '-infinity'
      then format('at must be an instant, got %L', enqueue.at)
    when jsonb_typeof(enqueue.keys) <> 'object'
      then format('keys must be a JSON object, got %L', left(enqueue.keys::text, 200))
    when length(enqueue.keys::text) > 1600
      then format('keys must be at most 1600 characters, got %s', length(enqueue.keys::text))
    when bytes > bytes_max
      then format('payload must be at most %s bytes, got %s', bytes_max, bytes)
    when jsonb_typeof(enqueue.policy) <> 'object'
      then format('policy must be a JSON object, got %L', left(enqueue.policy::text, 200))
  end;
  if problem is not null then
    raise exception 'orrery.enqueue: %', problem using errcode = 'invalid_parameter_value';
  end if;
  due := case
    when enqueue.at is not null then greatest(extract(epoch from enqueue.at) * 1000, 0)
    when enqueue.delay > interval '0' then now_ms + extract(epoch from enqueue.delay) * 1000
  end;
  insert into orrery.inbox (id, namespace, queue, task, payload, priority, created_at, due_at, keys, policy)
  values (run_id, enqueue.namespace, enqueue.queue, enqueue.task, coalesce(enqueue.payload, 'null')::text,
    enqueue.priority, now_ms, due, enqueue.keys::text, enqueue.policy::text);
  return run_id;
end
$$;
comment on function orrery.enqueue is 'enqueues a run with the transaction that calls it; answers its id';
`

export default Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(table)
  yield* sql.unsafe(functions)
})
