/**
 * The inbox as the owners of queues see it. Whoever writes it does so by `enqueueInTransaction` or `orrery.enqueue`; rows
 * leave it by the journal, with the commit that makes their runs.
 *
 * On the pool of readers: a statement per page, and one a second for the sweep.
 */
import { Fenced, type StoreUnavailable } from "@orrery/core/Errors"
import { Inbox, type InboxOwner, type InboxRow, waitingMax } from "@orrery/core/Inbox"
import type { PartitionName } from "@orrery/core/PartitionStore"
import { defaultPolicy, type RunRequest } from "@orrery/core/RunRequest"
import { Effect, Layer } from "effect"
import type Pg from "pg"
import { unavailable } from "./internal/pgErrors.js"
import { policyCode, policyText } from "./internal/policyCodes.js"
import { codes } from "./internal/states.js"
import { PgPools } from "./PgPools.js"

const wasUsed = {
  name: "orrery_inbox_used",
  text: `select last_value is not null as used from pg_sequences
    where schemaname = 'orrery' and sequencename = 'inbox_place_seq'`
}

const partition = "coalesce(b.partition, 0)"

/** A skip scan: one probe per partition, however many rows each has. The last one is null. */
const waiting = {
  name: "orrery_inbox_waiting",
  text: `with recursive found as (
      (select b.namespace, b.queue, ${partition} as partition from orrery.inbox b
        order by b.namespace, b.queue, ${partition} limit 1)
      union all
      select n.namespace, n.queue, n.partition from found f cross join lateral (
        select b.namespace, b.queue, ${partition} as partition from orrery.inbox b
        where (b.namespace, b.queue, ${partition}) > (f.namespace, f.queue, f.partition)
        order by b.namespace, b.queue, ${partition} limit 1
      ) n
    )
    select namespace, queue, partition from found limit ${waitingMax}`
}

/** The first row comes in any case. */
const read = {
  name: "orrery_inbox_read",
  text: `select *, more_rows is true as "hasMore" from (
      select b.id, b.namespace, b.queue, b.task, b.payload, b.priority, b.due_at as "dueAt", b.policy, b.keys, b.more,
        b.partition, lead(true) over line as more_rows, octet_length(b.payload) as bytes,
        sum(octet_length(b.payload)) over (line rows unbounded preceding) as total
      from orrery.inbox b where b.namespace = $1 and b.queue = $2 and ${partition} = $3
      window line as (order by b.place) order by b.place limit $4
    ) head
    where total <= $5::bigint or total = bytes`
}

const place = {
  name: "orrery_inbox_place",
  text: `update orrery.inbox b set partition = g.partition from unnest($1::uuid[], $2::integer[]) g(id, partition)
    where b.id = g.id and b.id = any($1::uuid[]) and b.partition is null`
}

const fence = `fence as materialized (
      select p.id from orrery.partitions p where p.id = $1 and p.epoch = $2::bigint for share
    )`

const remove = {
  name: "orrery_inbox_remove",
  text: `with ${fence},
    removed as (delete from orrery.inbox b where b.id = any($3::uuid[]) and exists (select from fence))
    select exists (select from fence) as open`
}

const refuse = {
  name: "orrery_inbox_refuse",
  text: `with ${fence},
    taken as (
      delete from orrery.inbox b using unnest($3::uuid[], $4::text[]) g(id, failure)
      where b.id = g.id and b.id = any($3::uuid[]) and exists (select from fence)
      returning b.id, b.task, b.priority, b.created_at, b.due_at, b.payload, g.failure
    ),
    ended as (
      insert into orrery.run_history
        (id, partition_id, priority, state, attempt, crashes, seq, created_at, scheduled_at, finished_at, task, payload,
          policy, failure, kept_days)
      select t.id, $1, t.priority, ${codes.failed}, 0, 0, 0, t.created_at, coalesce(t.due_at, t.created_at),
        floor(extract(epoch from clock_timestamp()) * 1000)::bigint, t.task, t.payload, $5, t.failure,
        orrery.kept_days($1, ${codes.failed}::smallint)
      from taken t
      where not exists (select from orrery.runs r where r.id = t.id)
        and not exists (select from orrery.run_history h where h.id = t.id)
    )
    select exists (select from fence) as open`
}

const defaultText = JSON.stringify(defaultPolicy)

interface Row {
  readonly id: RunRequest["id"]
  readonly namespace: string
  readonly queue: string
  readonly task: string
  readonly payload: string
  readonly priority: number
  readonly dueAt: number | null
  readonly policy: string | null
  readonly keys: string | null
  readonly more: string | null
  readonly partition: number | null
  readonly hasMore: boolean
}

const rowOf = (row: Row): InboxRow => ({
  partition: row.partition,
  request: {
    ...(row.more === null ? {} : JSON.parse(row.more) as object),
    id: row.id,
    namespace: row.namespace,
    queue: row.queue,
    task: row.task,
    payload: row.payload,
    priority: row.priority,
    when: row.dueAt === null ? { _tag: "delay", ms: 0 } : { _tag: "at", ms: row.dueAt },
    policy: row.policy === null ? defaultText : policyText(row.policy),
    keys: row.keys,
    resend: false
  }
})

export const make = Effect.gen(function*() {
  const { read: pool } = yield* PgPools

  const query = <R extends object>(
    operation: string,
    statement: { readonly name: string; readonly text: string },
    values: ReadonlyArray<unknown>
  ): Effect.Effect<Array<R>, StoreUnavailable> =>
    Effect.tryPromise({
      try: () => pool.query<R>({ ...statement, values: [...values] } satisfies Pg.QueryConfig),
      catch: unavailable(operation)
    }).pipe(Effect.map(({ rows }) => rows), Effect.withSpan(`PgInbox.${operation}`))

  const fenced = (
    operation: string,
    statement: { readonly name: string; readonly text: string },
    { epoch, partitionId }: InboxOwner,
    values: ReadonlyArray<unknown>
  ) =>
    Effect.flatMap(
      query<{ open: boolean }>(operation, statement, [partitionId, epoch, ...values]),
      ([row]) => row!.open ? Effect.void : new Fenced({ partitionId, epoch })
    )

  return Inbox.of({
    wasUsed: Effect.map(query<{ used: boolean }>("wasUsed", wasUsed, []), ([row]) => row?.used === true),
    waiting: query<PartitionName>("waiting", waiting, []),
    read: (name, limit, bytesMax) =>
      Effect.map(
        query<Row>("read", read, [name.namespace, name.queue, name.partition, limit, bytesMax]),
        (rows) => ({ rows: rows.map(rowOf), complete: rows[rows.length - 1]?.hasMore !== true && rows.length < limit })
      ),
    place: (rows) =>
      Effect.asVoid(query("place", place, [rows.map(({ id }) => id), rows.map((each) => each.partition)])),
    remove: (owner, ids) => fenced("remove", remove, owner, [ids]),
    refuse: (owner, refusals) =>
      fenced("refuse", refuse, owner, [
        refusals.map(({ id }) => id),
        refusals.map(({ failure }) => failure),
        policyCode(defaultText)
      ])
  })
})

export const layer: Layer.Layer<Inbox, never, PgPools> = Layer.effect(Inbox, make)
