/**
 * The one statement that writes run state: changes of many actors, in one round trip and one transaction.
 *
 * `fence` locks the rows of the partitions whose epoch is still the writer's, FOR SHARE. A takeover updates that row: it
 * waits for this statement to commit, or this statement waits for it and then finds another epoch, and everything
 * of that partition falls away. All writes go through `fence`.
 *
 * One text per combination of what there is to do, each prepared once per connection. Every part may be done again
 * with the same result: an insert meets its row, an update sets the same values, a finish finds nothing to move.
 */
import type { JournalBatch } from "@orrery/core/Journal"
import { plainArray, textArray } from "./pgArrays.js"
import { codes } from "./states.js"

export interface Statement {
  readonly name: string
  readonly text: string
  readonly values: Array<string | Buffer>
}

export interface CommitRow {
  /** Partitions whose epoch was the batch's. */
  readonly open: ReadonlyArray<number> | null
  /** Rows inserted. */
  readonly made: number
  /** The database clock, ms, with fractions. */
  readonly now: number
}

type Columns = ReadonlyArray<
  readonly [name: string, type: "uuid" | "integer" | "smallint" | "bigint" | "float8" | "text"]
>

const inserted = [
  ["id", "uuid"],
  ["partition_id", "integer"],
  ["seq", "bigint"],
  ["task", "text"],
  ["priority", "smallint"],
  ["created_at", "float8"],
  ["payload", "text"],
  ["policy", "text"],
  ["state", "smallint"],
  ["scheduled_at", "float8"],
  ["order_key", "float8"],
  ["attempt", "integer"],
  ["crashes", "integer"],
  ["lease", "bigint"],
  ["worker", "text"],
  ["failure", "text"],
  ["started_at", "float8"]
] as const satisfies Columns

const updated = [
  ["id", "uuid"],
  ["partition_id", "integer"],
  ["state", "smallint"],
  ["scheduled_at", "float8"],
  ["order_key", "float8"],
  ["attempt", "integer"],
  ["crashes", "integer"],
  ["lease", "bigint"],
  ["worker", "text"],
  ["failure", "text"],
  ["started_at", "float8"]
] as const satisfies Columns

const finished = [
  ["id", "uuid"],
  ["partition_id", "integer"],
  ["state", "smallint"],
  ["attempt", "integer"],
  ["crashes", "integer"],
  ["worker", "text"],
  ["started_at", "float8"],
  ["result", "text"],
  ["failure", "text"]
] as const satisfies Columns

/** What history takes over from the run as it was. */
const kept = ["id", "partition_id", "seq", "task", "priority", "created_at", "payload", "policy", "scheduled_at"]

const list = (columns: Columns, prefix = "") => columns.map(([name]) => prefix + name).join(", ")

/** `is true` makes it a hashed look-up per row; as a join the planner, who expects one partition, compares all pairs. */
const isOpen = (column: string) => `(${column} in (select id from fence)) is true`

/**
 * Ids that are final already. Also asked for requests that claim to be sent for the first time: the first copy can
 * come last, out of a node or a socket that was frozen. Days to come cannot hold any, and are pruned.
 */
const isFinal = (id: string) =>
  `exists (select from orrery.run_history h where h.id = ${id}
    and h.finished_at < (extract(epoch from now()) * 1000)::bigint + 3600000)`

/** What there is to do, by bits. */
const bits = { inserts: 1, updates: 2, finishes: 4 }

const build = (shape: number): string => {
  let places = 2
  const given = (columns: Columns) => columns.map(([, type]) => `$${++places}::${type}[]`).join(", ")
  const parts = [`fence as materialized (
    select p.id from orrery.partitions p
    join unnest($1::integer[], $2::bigint[]) f(id, epoch) on p.id = f.id and p.epoch = f.epoch
    for share of p
  )`]
  const withInserts = (shape & bits.inserts) > 0
  if (withInserts) {
    parts.push(`made as (
      insert into orrery.runs (${list(inserted)})
      select ${list(inserted, "i.")} from unnest(${given(inserted)}) i(${list(inserted)})
      where ${isOpen("i.partition_id")} and not ${isFinal("i.id")}
      on conflict (id) do nothing
      returning 1
    )`)
  }
  if ((shape & bits.updates) > 0) {
    const set = updated.slice(2).map(([name]) => `${name} = u.${name}`).join(", ")
    parts.push(`changed as (
      update orrery.runs r set ${set} from unnest(${given(updated)}) u(${list(updated)})
      where r.id = u.id and r.partition_id = u.partition_id and ${isOpen("u.partition_id")}
    )`)
  }
  if ((shape & bits.finishes) > 0) {
    const end = finished.slice(2).map(([name]) => name)
    parts.push(
      `gone as (
        delete from orrery.runs r using unnest(${given(finished)}) f(${list(finished)})
        where r.id = f.id and r.partition_id = f.partition_id and ${isOpen("f.partition_id")}
        returning ${[...kept.map((name) => `r.${name}`), ...end.map((name) => `f.${name}`)].join(", ")}
      )`,
      `ended as (
        insert into orrery.run_history (${[...kept, ...end].join(", ")}, finished_at)
        select gone.*, floor(extract(epoch from clock_timestamp()) * 1000)::bigint from gone
      )`
    )
  }
  return `with ${parts.join(",\n  ")}
    select (select array_agg(id) from fence) as open, ${
    withInserts ? "(select count(*) from made)" : "0"
  }::integer as made,
      (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
}

const texts = Array.from({ length: 8 }, (_, shape) => build(shape))

/** Rows where an insert did not happen, or happened before: whoever finds its own `seq` is the one who made it. */
export const whoseRows = (ids: ReadonlyArray<string>): Statement => ({
  name: "orrery_whose_rows",
  text: "select id, partition_id, seq from orrery.runs where id = any($1::uuid[])",
  values: [plainArray(ids)]
})

/** The batches must be of different partitions. */
export const commitStatement = (batches: ReadonlyArray<JournalBatch>): Statement => {
  const values: Array<string | Buffer> = [
    plainArray(batches.map((batch) => batch.partitionId)),
    plainArray(batches.map((batch) => batch.epoch))
  ]
  const shape = addInserts(values, batches) | addUpdates(values, batches) | addFinishes(values, batches)
  return { name: `orrery_commit_${shape}`, text: texts[shape]!, values }
}

type Column = Array<string | number | null>

const columnsOf = (columns: Columns): Array<Column> => columns.map(() => [])

const addColumns = (values: Array<string | Buffer>, columns: Columns, filled: ReadonlyArray<Column>): void => {
  columns.forEach(([, type], at) => {
    const column = filled[at]!
    values.push(type === "text" ? textArray(column as Array<string | null>) : plainArray(column))
  })
}

const addInserts = (values: Array<string | Buffer>, batches: ReadonlyArray<JournalBatch>): number => {
  if (!batches.some((batch) => batch.inserts.length > 0)) return 0
  const columns = columnsOf(inserted)
  const [
    id,
    partition,
    seq,
    task,
    priority,
    created,
    payload,
    policy,
    state,
    scheduled,
    orderKey,
    attempt,
    crashes,
    lease,
    worker,
    failure,
    started
  ] = columns as [
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column
  ]
  for (const { inserts, partitionId } of batches) {
    for (const { run } of inserts) {
      id.push(run.id)
      partition.push(partitionId)
      seq.push(run.seq)
      task.push(run.task)
      priority.push(run.priority)
      created.push(run.createdAt)
      payload.push(run.payload)
      policy.push(run.policy)
      state.push(codes[run.state])
      scheduled.push(run.scheduledAt)
      orderKey.push(run.orderKey)
      attempt.push(run.attempt)
      crashes.push(run.crashes)
      lease.push(run.lease)
      worker.push(run.worker)
      failure.push(run.failure)
      started.push(run.startedAt)
    }
  }
  addColumns(values, inserted, columns)
  return bits.inserts
}

const addUpdates = (values: Array<string | Buffer>, batches: ReadonlyArray<JournalBatch>): number => {
  if (!batches.some((batch) => batch.updates.length > 0)) return 0
  const columns = columnsOf(updated)
  const [id, partition, state, scheduled, orderKey, attempt, crashes, lease, worker, failure, started] = columns as [
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column
  ]
  for (const { partitionId, updates } of batches) {
    for (const update of updates) {
      id.push(update.id)
      partition.push(partitionId)
      state.push(codes[update.state])
      scheduled.push(update.scheduledAt)
      orderKey.push(update.orderKey)
      attempt.push(update.attempt)
      crashes.push(update.crashes)
      lease.push(update.lease)
      worker.push(update.worker)
      failure.push(update.failure)
      started.push(update.startedAt)
    }
  }
  addColumns(values, updated, columns)
  return bits.updates
}

const addFinishes = (values: Array<string | Buffer>, batches: ReadonlyArray<JournalBatch>): number => {
  if (!batches.some((batch) => batch.finishes.length > 0)) return 0
  const columns = columnsOf(finished)
  const [id, partition, state, attempt, crashes, worker, started, result, failure] = columns as [
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column,
    Column
  ]
  for (const { finishes, partitionId } of batches) {
    for (const finish of finishes) {
      id.push(finish.id)
      partition.push(partitionId)
      state.push(codes[finish.state])
      attempt.push(finish.attempt)
      crashes.push(finish.crashes)
      worker.push(finish.worker)
      started.push(finish.startedAt)
      result.push(finish.result)
      failure.push(finish.failure)
    }
  }
  addColumns(values, finished, columns)
  return bits.finishes
}
