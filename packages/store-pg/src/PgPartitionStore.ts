/**
 * What queue actors read, on PostgreSQL. Every statement goes by an index of its own and is bounded, however long the
 * backlog. Named statements: each is prepared once per connection.
 */
import type { CountedRuns } from "@orrery/core/Depths"
import type { StoreUnavailable } from "@orrery/core/Errors"
import type { StoredIdentity } from "@orrery/core/Identity"
import {
  type LinePageRequest,
  type Page,
  type PageRequest,
  type PartitionName,
  PartitionStore,
  type Takeover,
  type WithWork
} from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import { Effect, Layer } from "effect"
import type Pg from "pg"
import { unavailable } from "./internal/pgErrors.js"
import { isInLine, isRunning, isTimer, line, linesOf } from "./internal/places.js"
import { recordOf, settingsColumns, type SettingsRow } from "./internal/settingsRows.js"
import { storedColumns, storedOf, type StoredRow } from "./internal/storedRows.js"
import { PgPools } from "./PgPools.js"

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

/** Named, and not by its number: that is in an answer which is not waited for. */
const taken = "(select id from orrery.partitions where namespace = $1 and queue = $2 and partition = $3)"

const readRunning: Statement = {
  name: "orrery_running",
  text: `select ${storedColumns} from orrery.runs where partition_id = ${taken} and ${isRunning}`
}

const readWaiting: Statement = {
  name: "orrery_lines",
  text: `with recursive ${linesOf(taken)}
    select coalesce((select array_agg(line) from lines where line is not null), '{}') as "lines",
      exists (select from orrery.runs where partition_id = ${taken} and ${isTimer()}) as "hasTimers",
      (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
}

const readTakenSettings: Statement = {
  name: "orrery_taken_settings",
  text: `select ${settingsColumns()} from orrery.queue_settings s
    where s.namespace = $1 and s.queue = $2 and s.revision > 0`
}

const readSettings: Statement = {
  name: "orrery_settings",
  text: `select ${settingsColumns()} from unnest($1::text[], $2::text[], $3::bigint[]) k(namespace, queue, revision)
    join orrery.queue_settings s on s.namespace = k.namespace and s.queue = k.queue and s.revision > k.revision`
}

/**
 * The head of a line, cut where its payloads pass the bound; its first row comes in any case. `more` tells whether any
 * follows. `octet_length` does not fetch a payload that is stored apart, so rows that are cut off cost little.
 */
const page = (where: string, order: string, limit: string, bytesMax: string): string =>
  `select ${storedColumns}, more is true as more from (
      select *, lead(true) over line as more, octet_length(payload) as bytes,
        sum(octet_length(payload)) over (line rows unbounded preceding) as total
      from orrery.runs where partition_id = $1 and ${where}
      window line as (order by ${order}) order by ${order} limit ${limit}
    ) head
    where total <= ${bytesMax} or total = bytes
    order by ${order}`

const linePage: Statement = {
  name: "orrery_line_page",
  text: page(
    `${isInLine()} and ${line()} = $6 and (order_key, seq) > ($2::float8, $3::bigint)`,
    "order_key, seq",
    "$4",
    "$5"
  )
}
/** The heads of many lines in one round trip: each is short, the way to the database is not. */
const linePages: Statement = {
  name: "orrery_line_pages",
  text: `select q.at::integer, r.* from unnest($2::text[], $3::float8[], $4::bigint[], $5::integer[], $6::integer[])
      with ordinality q(line, after_key, after_seq, runs_max, bytes_max, at)
    cross join lateral (${
    page(
      `${isInLine()} and ${line()} = q.line and (order_key, seq) > (q.after_key, q.after_seq)`,
      "order_key, seq",
      "q.runs_max",
      "q.bytes_max"
    )
  }) r
    order by q.at, r."orderKey", r.seq`
}
const timersPage: Statement = {
  name: "orrery_timers_page",
  text: page(`${isTimer()} and (scheduled_at, seq) > ($2::float8, $3::bigint)`, "scheduled_at, seq", "$4", "$5")
}

const countLine: Statement = {
  name: "orrery_count_line",
  text: `select count(*)::integer as before from (
      select from orrery.runs where partition_id = $1 and ${isInLine()} and ${line()} = $2
        and (order_key, seq) < ($3::float8, $4::bigint) limit $5
    ) head`
}

const withoutPayload = storedColumns.replace("payload, ", "")

const readKeys: Statement = {
  name: "orrery_identities",
  text:
    `select i.task as "keyTask", i.key, i.run_id as "runId", i.expires_at as "expiresAt", i.first_at as "firstAt", r.*
    from unnest($2::text[], $3::text[]) q(task, key)
    join orrery.run_identities i on i.partition_id = $1 and i.task = q.task and i.key = q.key
    left join lateral (
      -- As a subquery of its own it is a look-up by id, whatever the statistics say.
      select ${withoutPayload} from orrery.runs r where r.id = i.run_id and r.partition_id = $1 offset 0
    ) r on true`
}

const pruneKeys: Statement = {
  name: "orrery_prune_identities",
  text: `delete from orrery.run_identities i using (
      select task, key from orrery.run_identities
      where partition_id = $1 and expires_at < extract(epoch from now()) * 1000
        and not exists (select from orrery.runs r where r.id = run_id)
      order by expires_at limit $2
    ) old
    where i.partition_id = $1 and i.task = old.task and i.key = old.key
      and i.expires_at < extract(epoch from now()) * 1000 and not exists (select from orrery.runs r where r.id = i.run_id)`
}

/** Each of the three by its index. */
const countByKeys: Statement = {
  name: "orrery_count_runs",
  text: `select keys, count(*)::integer as runs from (
      (select keys from orrery.runs where partition_id = $1 and ${isInLine()} limit $2)
      union all (select keys from orrery.runs where partition_id = $1 and ${isTimer()} limit $2)
      union all (select keys from orrery.runs where partition_id = $1 and ${isRunning} limit $2)
      limit $2
    ) found group by keys`
}

type IdentityRow = Omit<StoredRow, "id" | "payload"> & Omit<StoredIdentity, "task" | "run"> & {
  readonly keyTask: string
  readonly id: RunId | null
}

const identityOf = ({ expiresAt, firstAt, id, key, keyTask, runId, ...row }: IdentityRow): StoredIdentity => {
  const { payload: _, ...run } = storedOf({ ...row, id: runId, payload: "" })
  return { task: keyTask, key, runId, expiresAt, firstAt, run: id === null ? undefined : run }
}

const findStored: Statement = {
  name: "orrery_find_stored",
  text: `select ${storedColumns} from orrery.runs where id = $1 and partition_id = $2`
}

/** `limit 1` keeps the planner from answering `exists` by reading the whole table once. */
const listPartitions: Statement = {
  name: "orrery_with_work",
  text: `select id as "partitionId", namespace, queue, partition from orrery.partitions p
    where id <> all($1::integer[]) and (
      (select 1 from orrery.runs r where r.partition_id = p.id and ${isInLine("r.")} limit 1) is not null
      or (select 1 from orrery.runs r where r.partition_id = p.id and ${isTimer("r.")} limit 1) is not null
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

/**
 * Sends all at once, over one connection: the server answers one after the other. The rows of each; fails with the first failure,
 * once all have been answered.
 */
const inTurn = async (pool: Pg.Pool, statements: ReadonlyArray<Pg.QueryConfig>) => {
  const client = await pool.connect()
  // Unheard, the event of a connection that breaks would end the process: its statements fail too.
  const heard = () => undefined
  client.on("error", heard)
  const answers = await Promise.allSettled(statements.map((each) => client.query<object>(each)))
  client.removeListener("error", heard)
  const failed = answers.find((each) => each.status === "rejected")
  client.release(failed !== undefined)
  if (failed !== undefined) throw failed.reason
  return answers.map((each): ReadonlyArray<object> => each.status === "fulfilled" ? each.value.rows : [])
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

  const newerSettings: PartitionStore["Type"]["newerSettings"] = (known) =>
    Effect.map(
      query<SettingsRow>("newerSettings", readSettings, [
        known.map(({ namespace }) => namespace),
        known.map(({ queue }) => queue),
        known.map(({ revision }) => revision)
      ]),
      (rows) => rows.map(recordOf)
    )

  /**
   * One round trip: from the raised epoch on nobody serves the partition. Each statement is a transaction of its own, begun when
   * the one before it has committed, so the later snapshots hold everything the old owner has committed.
   */
  const takeOver = ({ namespace, partition, queue }: PartitionName, owner: string) => {
    const name = [namespace, queue, partition]
    return Effect.tryPromise({
      try: () =>
        inTurn(read, [
          { ...raiseEpoch, values: [...name, owner] },
          { ...readRunning, values: name },
          { ...readTakenSettings, values: [namespace, queue] },
          { ...readWaiting, values: name }
        ]),
      catch: unavailable("takeOver")
    }).pipe(
      Effect.map(([raised, running, settings, waiting]): Takeover => {
        const { epoch, id } = raised![0] as { readonly id: number; readonly epoch: number }
        const known = settings as ReadonlyArray<SettingsRow>
        return {
          partitionId: id,
          epoch,
          running: (running as ReadonlyArray<StoredRow>).map(storedOf),
          ...waiting![0] as Pick<Takeover, "hasTimers" | "now" | "lines">,
          ...known[0] === undefined ? {} : { settings: recordOf(known[0]) }
        }
      }),
      Effect.withSpan("PgPartitionStore.takeOver")
    )
  }

  const readLines = (requests: ReadonlyArray<LinePageRequest>) => {
    const [first] = requests
    if (first === undefined) return Effect.succeed([])
    if (requests.length === 1) return Effect.map(readPage("readLines", linePage, first, [first.line]), (only) => [only])
    return query<PageRow & { readonly at: number }>("readLines", linePages, [
      first.partitionId,
      requests.map((each) => each.line),
      requests.map((each) => each.afterKey),
      requests.map((each) => seqAfter(each.afterSeq)),
      requests.map((each) => each.limit),
      requests.map((each) => each.bytesMax)
    ]).pipe(Effect.map((rows) => {
      const pages = requests.map((): Array<PageRow> => [])
      for (const row of rows) pages[row.at - 1]!.push(row)
      return pages.map(pageOf)
    }))
  }

  return PartitionStore.of({
    takeOver,
    readLines,
    readTimers: (request) => readPage("readTimers", timersPage, request, []),
    findRun: (partitionId, id) =>
      query<StoredRow>("findRun", findStored, [id, partitionId]).pipe(
        Effect.map(([row]) => row === undefined ? undefined : storedOf(row))
      ),
    readIdentities: (partitionId, keys) =>
      Effect.map(
        query<IdentityRow>("readIdentities", readKeys, [
          partitionId,
          keys.map(({ task }) => task),
          keys.map(({ key }) => key)
        ]),
        (rows) => rows.map(identityOf)
      ),
    pruneIdentities: (partitionId, limit) =>
      Effect.tryPromise({
        try: () => read.query({ ...pruneKeys, values: [partitionId, limit] }),
        catch: unavailable("pruneIdentities")
      }).pipe(Effect.map(({ rowCount }) => rowCount ?? 0)),
    countRuns: (partitionId, limit) =>
      Effect.map(
        query<CountedRuns["groups"][number]>("countRuns", countByKeys, [partitionId, limit]),
        (groups) => ({ groups, complete: groups.reduce((sum, { runs }) => sum + runs, 0) < limit })
      ),
    epochs: (partitionIds) =>
      Effect.map(
        query<{ id: number; epoch: number }>("epochs", readEpochs, [partitionIds]),
        (rows) => new Map(rows.map(({ epoch, id }) => [id, epoch]))
      ),
    countBefore: ({ limit, line, orderKey, partitionId, seq }) =>
      Effect.map(
        query<{ before: number }>("countBefore", countLine, [partitionId, line, orderKey, seq, limit]),
        ([row]) => row!.before
      ),
    newerSettings,
    now: Effect.map(query<{ now: number }>("now", readClock, []), ([row]) => row!.now),
    listWithWork: (except) => query<WithWork>("listWithWork", listPartitions, [except])
  })
})

/**
 * Dials the connections of the pool, and has each prepare what a take-over reads: a node that has just joined takes many partitions
 * over at once. What fails is dialled later.
 */
const warmUp = Effect.flatMap(PgPools, ({ read }) =>
  Effect.forEach(
    Array.from({ length: read.options.max }),
    () =>
      Effect.ignore(
        Effect.tryPromise(() =>
          inTurn(read, [
            { ...readRunning, values: nobody },
            { ...readTakenSettings, values: nobody.slice(0, 2) },
            { ...readWaiting, values: nobody }
          ])
        )
      ),
    { concurrency: read.options.max, discard: true }
  ))

/** No partition has a namespace without a name. */
const nobody = ["", "", 0]

export const layer: Layer.Layer<PartitionStore, never, PgPools> = Layer.scoped(
  PartitionStore,
  Effect.tap(make, () => Effect.forkScoped(warmUp))
)
