/**
 * What queue actors read, on PostgreSQL. Every statement goes by an index of its own and is bounded, however long the
 * backlog. Named statements: each is prepared once per connection.
 */
import type { StoreUnavailable } from "@orrery/core/Errors"
import {
  type Page,
  type PageRequest,
  type PartitionName,
  PartitionStore,
  type Takeover,
  type WithWork
} from "@orrery/core/PartitionStore"
import { Effect, Layer } from "effect"
import type Pg from "pg"
import { unavailable } from "./internal/pgErrors.js"
import { codes } from "./internal/states.js"
import { storedColumns, storedOf, type StoredRow } from "./internal/storedRows.js"
import { PgPools } from "./PgPools.js"

const isReady = `state = ${codes.ready}`
const isTimer = `state in (${codes.scheduled}, ${codes.retrying})`
const isRunning = `state = ${codes.running}`

interface Statement {
  readonly name: string
  readonly text: string
}

/** Waits for commits under the old epoch, which hold the row FOR SHARE. */
const raiseEpoch: Statement = {
  name: "orrery_raise_epoch",
  text: `insert into orrery.partitions as p (namespace, queue, partition, epoch, owner, taken_at)
    values ($1, $2, $3, 1, $4, now())
    on conflict (namespace, queue, partition)
    do update set epoch = p.epoch + 1, owner = excluded.owner, taken_at = excluded.taken_at
    returning id, epoch`
}

const readRunning: Statement = {
  name: "orrery_running",
  text: `select ${storedColumns} from orrery.runs where partition_id = $1 and ${isRunning}`
}

/** The tasks by a skip scan: one probe per task, whatever the number of runs. */
const readLines: Statement = {
  name: "orrery_lines",
  text: `with recursive tasks as (
      (select task from orrery.runs where partition_id = $1 and ${isReady} order by task limit 1)
      union all
      select (
        select r.task from orrery.runs r where r.partition_id = $1 and r.${isReady} and r.task > t.task order by r.task limit 1
      ) from tasks t where t.task is not null
    )
    select coalesce((select array_agg(task) from tasks where task is not null), '{}') as "readyTasks",
      exists (select from orrery.runs where partition_id = $1 and ${isTimer}) as "hasTimers",
      (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
}

/**
 * The head of a line, cut where its payloads pass the bound; its first row comes in any case. `more` tells whether any
 * follows. `octet_length` does not fetch a payload that is stored apart, so rows that are cut off cost little.
 */
const page = (name: string, where: string, order: string): Statement => ({
  name,
  text: `select ${storedColumns}, more is true as more from (
      select *, lead(true) over line as more, octet_length(payload) as bytes,
        sum(octet_length(payload)) over (line rows unbounded preceding) as total
      from orrery.runs where partition_id = $1 and ${where}
      window line as (order by ${order}) order by ${order} limit $4
    ) head
    where total <= $5 or total = bytes
    order by ${order}`
})

const readyPage = page(
  "orrery_ready_page",
  `${isReady} and (order_key, seq) > ($2::float8, $3::bigint) and task = $6`,
  "order_key, seq"
)
const timersPage = page(
  "orrery_timers_page",
  `${isTimer} and (scheduled_at, seq) > ($2::float8, $3::bigint)`,
  "scheduled_at, seq"
)

const findStored: Statement = {
  name: "orrery_find_stored",
  text: `select ${storedColumns} from orrery.runs where id = $1 and partition_id = $2`
}

/** `limit 1` keeps the planner from answering `exists` by reading the whole table once. */
const listPartitions: Statement = {
  name: "orrery_with_work",
  text: `select id as "partitionId", namespace, queue, partition from orrery.partitions p
    where id <> all($1::integer[]) and (
      (select 1 from orrery.runs r where r.partition_id = p.id and r.${isReady} limit 1) is not null
      or (select 1 from orrery.runs r where r.partition_id = p.id and r.${isTimer} limit 1) is not null
      or (select 1 from orrery.runs r where r.partition_id = p.id and r.${isRunning} limit 1) is not null
    )`
}

type PageRow = StoredRow & { readonly more: boolean }

const pageOf = (rows: ReadonlyArray<PageRow>): Page => ({
  runs: rows.map(storedOf),
  complete: rows[rows.length - 1]?.more !== true
})

const readEpochs = {
  name: "orrery_epochs",
  text: `select id, epoch::float8 as epoch from orrery.partitions where id = any($1::integer[])`
}

const readClock = {
  name: "orrery_clock",
  text: `select (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
}

/** A window that has read nothing yet asks for what follows -Infinity, which `bigint` does not know. */
const seqAfter = (seq: number): number => Math.max(Math.min(seq, Number.MAX_SAFE_INTEGER), Number.MIN_SAFE_INTEGER)

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools

  const query = <Row extends object>(
    operation: string,
    statement: Statement,
    values: ReadonlyArray<unknown>
  ): Effect.Effect<Array<Row>, StoreUnavailable> =>
    Effect.tryPromise({
      try: () => read.query<Row>({ ...statement, values: [...values] } satisfies Pg.QueryConfig),
      catch: unavailable(operation)
    }).pipe(Effect.map((result) => result.rows), Effect.withSpan(`PgPartitionStore.${operation}`))

  const readPage = (operation: string, statement: Statement, request: PageRequest, more: ReadonlyArray<unknown>) =>
    query<PageRow>(operation, statement, [
      request.partitionId,
      request.afterKey,
      seqAfter(request.afterSeq),
      request.limit,
      request.bytesMax,
      ...more
    ]).pipe(Effect.map(pageOf))

  const takeOver = Effect.fnUntraced(function*({ namespace, partition, queue }: PartitionName, owner: string) {
    const [taken] = yield* query<{ id: number; epoch: number }>("takeOver", raiseEpoch, [
      namespace,
      queue,
      partition,
      owner
    ])
    const { epoch, id } = taken!
    // Later statements: their snapshots hold everything the old owner has committed.
    const running = yield* query<StoredRow>("takeOver", readRunning, [id])
    const [lines] = yield* query<Pick<Takeover, "hasTimers" | "now" | "readyTasks">>("takeOver", readLines, [id])
    return { partitionId: id, epoch, running: running.map(storedOf), ...lines! }
  })

  return PartitionStore.of({
    takeOver,
    readReady: (request) => readPage("readReady", readyPage, request, [request.task]),
    readTimers: (request) => readPage("readTimers", timersPage, request, []),
    findRun: (partitionId, id) =>
      query<StoredRow>("findRun", findStored, [id, partitionId]).pipe(
        Effect.map(([row]) => row === undefined ? undefined : storedOf(row))
      ),
    epochs: (partitionIds) =>
      Effect.map(
        query<{ id: number; epoch: number }>("epochs", readEpochs, [partitionIds]),
        (rows) => new Map(rows.map(({ epoch, id }) => [id, epoch]))
      ),
    now: Effect.map(query<{ now: number }>("now", readClock, []), ([row]) => row!.now),
    listWithWork: (except) => query<WithWork>("listWithWork", listPartitions, [except])
  })
})

export const layer: Layer.Layer<PartitionStore, never, PgPools> = Layer.effect(PartitionStore, make)
