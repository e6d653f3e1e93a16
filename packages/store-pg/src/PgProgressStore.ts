/** What runs have told, on PostgreSQL. Written beside the journal, under the same fence. */
import { Fenced, type StoreUnavailable } from "@orrery/core/Errors"
import { type Ends, ProgressStore, type RunEnd } from "@orrery/core/ProgressStore"
import type { RunId } from "@orrery/core/RunId"
import { LogLine, type StoredNotes } from "@orrery/core/RunNotes"
import type { FinalState } from "@orrery/core/RunState"
import { Effect, Either, Layer, Schedule, Schema } from "effect"
import { unavailable } from "./internal/pgErrors.js"
import { names } from "./internal/states.js"
import { PgPools } from "./PgPools.js"

/**
 * As a commit of the journal does, it holds the row of the partition FOR SHARE: a takeover waits for it, or it finds another
 * epoch and writes nothing.
 */
const writeText = `with fence as materialized (
    select p.id from orrery.partitions p where p.id = $1 and p.epoch = $2 for share
  ), written as (
    insert into orrery.run_progress as r (partition_id, run_id, lease, lease_lines, attempt, updated_at, progress,
      progress_count, lines, line_count, checkpoint)
    select (select id from fence), n.* from unnest($3::uuid[], $4::bigint[], $5::integer[], $6::integer[], $7::float8[],
      $8::text[], $9::integer[], $10::text[], $11::integer[], $12::text[]) n
    where exists (select from fence)
    on conflict (run_id) do update set lease = excluded.lease, lease_lines = excluded.lease_lines,
      attempt = excluded.attempt, updated_at = excluded.updated_at, progress = excluded.progress,
      progress_count = excluded.progress_count, lines = excluded.lines, line_count = excluded.line_count,
      checkpoint = coalesce(excluded.checkpoint, r.checkpoint)
    where r.lease <= excluded.lease
    returning 1
  ) select exists (select from fence) as open, (select count(*) from written)::integer as rows`

const findText = `select run_id as "runId", lease, lease_lines as "leaseLines", attempt, updated_at as "updatedAt",
  progress, progress_count as "progressCount", lines, line_count as "lineCount"
  from orrery.run_progress where run_id = any($1::uuid[])`

const checkpointText = `select checkpoint from orrery.run_progress where run_id = $1`

/**
 * A commit that began later gives its runs a later end. Those under way began at their `xact_start`: nothing that is not
 * seen by the next statement can have ended before the first of them.
 */
const horizonText = `select
    floor(extract(epoch from least(clock_timestamp(), min(a.xact_start))) * 1000)::float8 as horizon,
    (select coalesce(array_agg(id), '{}') from orrery.partitions where namespace = $1 and queue = $2) as ids
  from pg_stat_activity a
  where a.datname = current_database() and a.application_name like 'orrery-journal%' and a.state <> 'idle'`

const endsText =
  `select id, state, finished_at as "finishedAt" from orrery.ends_since($1::integer[], $2::bigint, $3::integer)`

/** A run moves to the history in one statement, so one that looks at both sees it once; `-1`: it is not final. */
const endingsText = `select r.id, -1 as state from orrery.runs r join orrery.partitions p on p.id = r.partition_id
    where r.id = any($1::uuid[]) and p.namespace = $2 and p.queue = $3
  union all
  select r.id, r.state from orrery.run_history r join orrery.partitions p on p.id = r.partition_id
    where r.id = any($1::uuid[]) and p.namespace = $2 and p.queue = $3
  union all
  select b.id, -1 from orrery.inbox b where b.id = any($1::uuid[]) and b.namespace = $2 and b.queue = $3`

type Row = Omit<StoredNotes, "lines"> & { readonly lines: string }

const decodeLines = Schema.decodeUnknownEither(Schema.parseJson(Schema.Array(LogLine)))

/** Lines of another release are left out, rather than hiding the rest. */
const notesOf = ({ lines, ...row }: Row): StoredNotes => ({
  ...row,
  lines: Either.getOrElse(decodeLines(lines), () => [])
})

/** A write may be repeated: it says what shall be, not what shall change. */
const again = Schedule.exponential("50 millis").pipe(Schedule.intersect(Schedule.recurs(3)))

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools

  const query = <A extends object>(operation: string, name: string, text: string, values: ReadonlyArray<unknown>) =>
    Effect.tryPromise({
      try: () => read.query<A>({ name: `orrery_${name}`, text, values: [...values] }),
      catch: unavailable(operation)
    }).pipe(Effect.map(({ rows }) => rows), Effect.withSpan(`PgProgressStore.${operation}`))

  const endsSince: ProgressStore["Type"]["endsSince"] = Effect.fnUntraced(
    function*({ limit, namespace, queue, since }): Effect.fn.Return<Ends, StoreUnavailable> {
      const [first] = yield* query<{ horizon: number; ids: ReadonlyArray<number> }>(
        "endsSince",
        "horizon",
        horizonText,
        [
          namespace,
          queue
        ]
      )
      const { horizon, ids } = first!
      if (ids.length === 0) return { ends: [], horizon, more: false }
      const rows = yield* query<Omit<RunEnd, "state"> & { state: number }>("endsSince", "ends_since", endsText, [
        ids,
        Math.floor(since),
        limit + 1
      ])
      const ends = rows.slice(0, limit).map((row) => ({ ...row, state: names[row.state] as RunEnd["state"] }))
      return { ends, horizon, more: rows.length > limit }
    }
  )

  return ProgressStore.of({
    write: ({ epoch, partitionId, rows }) => {
      const column = <A>(of: (row: typeof rows[number]) => A) => rows.map(of)
      return query<{ open: boolean }>("write", "write_progress", writeText, [
        partitionId,
        epoch,
        column(({ notes }) => notes.runId),
        column(({ notes }) => notes.lease),
        column(({ notes }) => notes.leaseLines),
        column(({ notes }) => notes.attempt),
        column(({ notes }) => notes.updatedAt),
        column(({ notes }) => notes.progress),
        column(({ notes }) => notes.progressCount),
        column(({ notes }) => JSON.stringify(notes.lines)),
        column(({ notes }) => notes.lineCount),
        column(({ checkpoint }) => checkpoint ?? null)
      ]).pipe(
        Effect.retry(again),
        Effect.flatMap(([row]) => row!.open ? Effect.void : new Fenced({ partitionId, epoch }))
      )
    },
    find: (ids) => Effect.map(query<Row>("find", "find_progress", findText, [ids]), (rows) => rows.map(notesOf)),
    checkpoint: (id) =>
      Effect.map(
        query<{ checkpoint: string | null }>("checkpoint", "find_checkpoint", checkpointText, [id]),
        ([row]) => row?.checkpoint ?? null
      ),
    endsSince,
    endings: ({ namespace, queue }, ids) =>
      Effect.map(
        query<{ id: RunId; state: number }>("endings", "endings", endingsText, [ids, namespace, queue]),
        (rows) => new Map(rows.map(({ id, state }) => [id, state < 0 ? "open" : names[state] as FinalState]))
      )
  })
})

export const layer: Layer.Layer<ProgressStore, never, PgPools> = Layer.effect(ProgressStore, make)

/** Rows told of in the last hour stay in any case, ms. */
const keptMs = 3_600_000
const sweepRowsMax = 1_000

/** Deletes what runs have told that are nowhere any more; a thousand at most, answers how many. Any node may call it, or all. */
export const sweep: Effect.Effect<number, StoreUnavailable, PgPools> = Effect.flatMap(
  PgPools,
  ({ read }) =>
    Effect.tryPromise({
      try: () =>
        read.query<{ deleted: number }>(
          `select orrery.sweep_run_progress(extract(epoch from now()) * 1000 - ${keptMs}, ${sweepRowsMax}) as deleted`
        ),
      catch: unavailable("sweep")
    })
).pipe(Effect.map(({ rows: [row] }) => row?.deleted ?? 0))
