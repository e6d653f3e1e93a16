/**
 * Schedules in PostgreSQL. A commit is one statement: `fence` locks the partition's row FOR SHARE where its epoch is still
 * the writer's, and everything else goes through it, so a takeover, which updates that row, waits for it or shuts it out.
 * Each part may be done again with the same result.
 *
 * On the pool of readers: a commit a second for all schedules of a partition that are due in it is usual.
 */
import { Fenced, type StoreUnavailable } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import { idOf, Schedule, type Tick } from "@orrery/core/schedule/ScheduleDefinition"
import { loadLimitMax, type Promised, type ScheduleBatch, ScheduleStore } from "@orrery/core/schedule/ScheduleStore"
import { Effect, Layer, Schema } from "effect"
import type Pg from "pg"
import { unavailable } from "./internal/pgErrors.js"
import { codes } from "./internal/states.js"
import { PgPools } from "./PgPools.js"

const clock = "(extract(epoch from clock_timestamp()) * 1000)::float8 as now"

const takeOver = {
  name: "orrery_schedules_take_over",
  text: `insert into orrery.schedule_partitions as p (partition, epoch, owner, taken_at) values ($1, 1, $2, now())
    on conflict (partition) do update set epoch = p.epoch + 1, owner = excluded.owner, taken_at = excluded.taken_at
    returning epoch::float8 as epoch, ${clock}`
}

const readEpochs = {
  name: "orrery_schedules_epochs",
  text: `select partition, epoch::float8 as epoch from orrery.schedule_partitions where partition = any($1::integer[])`
}

const commitText = {
  name: "orrery_schedules_commit",
  text: `with fence as materialized (
      select from orrery.schedule_partitions where partition = $1 and epoch = $2::bigint for share
    ),
    saved as (
      insert into orrery.schedules (id, partition, namespace, next_at, created_at, lateness_ms, definition, state)
      select s.id, $1, s.namespace, s.next_at, s.created_at, s.lateness_ms, s.definition, s.state
      from json_to_recordset($3::json) s(
        id text, namespace text, next_at float8, created_at float8, lateness_ms float8, definition text, state text
      ) where exists (select from fence)
      on conflict (id) do update set next_at = excluded.next_at, lateness_ms = excluded.lateness_ms,
        definition = excluded.definition, state = excluded.state
    ),
    stepped as (
      update orrery.schedules s set next_at = n.next_at, lateness_ms = n.lateness_ms, state = n.state
      from json_to_recordset($8::json) n(id text, next_at float8, lateness_ms float8, state text)
      where s.id = n.id and s.partition = $1 and exists (select from fence)
    ),
    deleted as (
      delete from orrery.schedules where partition = $1 and id = any($4::text[]) and exists (select from fence)
    ),
    forgotten as (
      delete from orrery.schedule_ticks where schedule_id = any($4::text[]) and exists (select from fence)
    ),
    ticks as (
      insert into orrery.schedule_ticks (schedule_id, first, last, count, outcome, reason, run_id, at)
      select t."scheduleId", t.first, t.last, t.count, t.outcome, t.reason, t."runId", t.at
      from json_to_recordset($5::json) t(
        "scheduleId" text, first float8, last float8, count integer, outcome text, reason text, "runId" uuid, at float8
      ) where exists (select from fence)
      on conflict do nothing
    ),
    promised as (
      insert into orrery.schedule_promised (run_id, partition, schedule_id, nominal, at, backfill)
      select p."runId", $1, p."scheduleId", p.nominal, p.at, p."isBackfill"
      from json_to_recordset($6::json) p("runId" uuid, "scheduleId" text, nominal float8, at float8, "isBackfill" boolean)
      where exists (select from fence)
      on conflict do nothing
    ),
    kept as (
      delete from orrery.schedule_promised where run_id = any($7::uuid[]) and partition = $1 and exists (select from fence)
    )
    select exists (select from fence) as open, ${clock}`
}

const columns = `created_at as "createdAt", lateness_ms as "latenessMs", definition, state`
const load = {
  name: "orrery_schedules_load",
  text: `select ${columns} from orrery.schedules where partition = $1 and id > $2 order by id limit ${loadLimitMax}`
}
const loadPromised = {
  name: "orrery_schedules_promised",
  text: `select run_id as "runId", schedule_id as "scheduleId", nominal, at, backfill from orrery.schedule_promised
    where partition = $1 and run_id > $2::uuid order by run_id limit ${loadLimitMax}`
}
const find = { name: "orrery_schedules_find", text: `select ${columns} from orrery.schedules where id = $1` }
const list = {
  name: "orrery_schedules_list",
  text:
    `select ${columns} from orrery.schedules where id > $1 and ($2::text is null or namespace = $2) order by id limit $3`
}
const listTicks = {
  name: "orrery_schedules_ticks",
  text: `select first, last, count, outcome, reason, run_id as "runId", at from orrery.schedule_ticks
    where schedule_id = $1 order by first desc, at desc limit $2`
}
const pruneTicks = {
  name: "orrery_schedules_prune",
  text: `delete from orrery.schedule_ticks where ctid = any(array(
      select ctid from orrery.schedule_ticks where at < $1 order by at limit 10000
    ))`
}
/** A run moves from the one table to the other in one statement: whoever looks at both sees it. */
const ended = {
  name: "orrery_schedules_ended",
  text: `select id as "runId", coalesce(state = ${codes.failed}, false) as "isFailure" from (
      select g.id, (select h.state from orrery.run_history h where h.id = g.id limit 1) as state,
        exists (select from orrery.runs r where r.id = g.id)
          or exists (select from orrery.schedule_promised p where p.run_id = g.id) as is_open
      from unnest($1::uuid[]) g(id)
    ) looked where state is not null or not is_open`
}
const readClock = { name: "orrery_clock_schedules", text: `select ${clock}` }

const lowestId = "00000000-0000-0000-0000-000000000000"

interface Row {
  readonly createdAt: number
  readonly latenessMs: number | null
  readonly definition: string
  readonly state: string
}

interface PromisedRow extends Omit<Promised, "isBackfill"> {
  readonly backfill: boolean | null
}

const promisedOf = ({ backfill, ...rest }: PromisedRow): Promised =>
  backfill === true ? { ...rest, isBackfill: true } : rest

const decode = Schema.decodeUnknown(Schedule)

/** A row of a later release may hold what this one cannot read: it is left alone, and said. */
const scheduleOf = (row: Row) =>
  Effect.suspend(() =>
    decode({
      createdAt: row.createdAt,
      latenessMs: row.latenessMs,
      definition: JSON.parse(row.definition) as unknown,
      state: JSON.parse(row.state) as unknown
    })
  ).pipe(
    Effect.map((schedule) => [schedule]),
    Effect.catchAll((error) => Effect.as(Effect.logWarning("a stored schedule cannot be read", error.message), []))
  )

const steppedRow = ({ definition, latenessMs, state }: Schedule) => ({
  id: idOf(definition),
  next_at: state.nextAt,
  lateness_ms: latenessMs,
  state: JSON.stringify(state)
})

const savedRow = (schedule: Schedule) => ({
  ...steppedRow(schedule),
  namespace: schedule.definition.namespace,
  created_at: schedule.createdAt,
  definition: JSON.stringify(schedule.definition)
})

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools

  const query = <R extends object>(
    operation: string,
    statement: { readonly name: string; readonly text: string },
    values: ReadonlyArray<unknown>
  ): Effect.Effect<Pg.QueryResult<R>, StoreUnavailable> =>
    Effect.tryPromise({
      try: () => read.query<R>({ ...statement, values: [...values] }),
      catch: unavailable(operation)
    }).pipe(Effect.withSpan(`PgScheduleStore.${operation}`))

  const schedules = (
    operation: string,
    statement: { readonly name: string; readonly text: string },
    values: ReadonlyArray<unknown>
  ) =>
    Effect.flatMap(
      query<Row>(operation, statement, values),
      ({ rows }) => Effect.map(Effect.forEach(rows, scheduleOf), (found) => found.flat())
    )

  const commit = Effect.fnUntraced(function*(batch: ScheduleBatch) {
    const { rows: [row] } = yield* query<{ open: boolean; now: number }>("commit", commitText, [
      batch.partition,
      batch.epoch,
      JSON.stringify(batch.saved.map(savedRow)),
      batch.deleted,
      JSON.stringify(batch.ticks),
      JSON.stringify(batch.promised),
      batch.kept,
      JSON.stringify(batch.stepped.map(steppedRow))
    ])
    if (!row!.open) return yield* new Fenced({ partitionId: batch.partition, epoch: batch.epoch })
    return row!.now
  })

  return ScheduleStore.of({
    takeOver: (partition, owner) =>
      Effect.map(
        query<{ epoch: number; now: number }>("takeOver", takeOver, [partition, owner]),
        ({ rows }) => rows[0]!
      ),
    epochs: (partitions) =>
      Effect.map(
        query<{ partition: number; epoch: number }>("epochs", readEpochs, [partitions]),
        ({ rows }) => new Map(rows.map(({ epoch, partition }) => [partition, epoch]))
      ),
    load: (partition, after) => schedules("load", load, [partition, after]),
    loadPromised: (partition, after) =>
      Effect.map(
        query<PromisedRow>("loadPromised", loadPromised, [partition, after ?? lowestId]),
        ({ rows }) => rows.map(promisedOf)
      ),
    commit,
    ended: (runs) =>
      Effect.map(query<{ runId: RunId; isFailure: boolean }>("ended", ended, [runs]), ({ rows }) => rows),
    now: Effect.map(query<{ now: number }>("now", readClock, []), ({ rows }) => rows[0]!.now),
    find: (id) => Effect.map(schedules("find", find, [id]), ([schedule]) => schedule),
    list: ({ after, limit, namespace }) => schedules("list", list, [after ?? "", namespace ?? null, limit]),
    ticks: (id, limit) => Effect.map(query<Tick>("ticks", listTicks, [id, limit]), ({ rows }) => rows),
    pruneTicks: (before) => Effect.map(query("pruneTicks", pruneTicks, [before]), ({ rowCount }) => rowCount ?? 0)
  })
})

export const layer: Layer.Layer<ScheduleStore, never, PgPools> = Layer.effect(ScheduleStore, make)
