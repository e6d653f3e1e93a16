/**
 * The one statement that writes run state: changes of many actors, in one round trip and one transaction.
 *
 * `fence` locks the rows of the partitions whose epoch is still the writer's, FOR SHARE. A takeover updates that row: it
 * waits for this statement to commit, or this statement waits for it and then finds another epoch, and everything
 * of that partition falls away. All writes go through `fence`.
 *
 * One text per combination of what there is to do, made when it is first met and prepared once per connection. Every part may be done again
 * with the same result: an insert meets its row, an update sets the same values, a finish finds nothing to move.
 *
 * New runs come in two ways. `fresh`, nearly always: plain inserts of the columns a new run can differ in, and one look
 * into the history for the whole batch. It fails with a unique violation when any of the runs is there already; then, and
 * when a request is known to be a repetition, the same batch goes `careful`: row by row, whatever is there.
 * Measured (docs/decisions/0007): 17 us a row careful, 14 us fresh.
 */
import type { Claim } from "@orrery/core/Identity"
import type { JournalBatch, RunFinish, RunUpdate, StartRoll } from "@orrery/core/Journal"
import { lineOf } from "@orrery/core/RunKeys"
import { numberArray, type NumberType, plainArray, textArray } from "./pgArrays.js"
import { policyCode } from "./policyCodes.js"
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
  /** Rows updated. */
  readonly changed: number
  /** The database clock, ms, with fractions. */
  readonly now: number
}

/** A column: its name, its type, and where its value comes from. */
type Columns<A> = ReadonlyArray<
  readonly [
    name: string,
    type: NumberType | "uuid" | "text",
    of: (change: A, batch: JournalBatch) => string | number | null
  ]
>
type Insert = JournalBatch["inserts"][number]

/** What new runs can differ in; the table has defaults for the rest. */
const fresh: Columns<Insert> = [
  ["id", "uuid", ({ run }) => run.id],
  ["partition_id", "integer", (_, batch) => batch.partitionId],
  ["seq", "bigint", ({ run }) => run.seq],
  ["task", "text", ({ run }) => run.task],
  ["priority", "smallint", ({ run }) => run.priority],
  ["created_at", "float8", ({ run }) => run.createdAt],
  ["payload", "text", ({ run }) => run.payload],
  ["policy", "text", ({ run }) => policyCode(run.policy)],
  ["state", "smallint", ({ run }) => codes[run.state]],
  ["scheduled_at", "float8", ({ run }) => run.scheduledAt],
  ["order_key", "float8", ({ run }) => run.orderKey]
]

/** What a run is told beyond that. */
const told: Columns<Insert> = [
  ["line", "text", ({ run }) => run.keys === null ? null : lineOf(run.task, run.keys)],
  ["keys", "text", ({ run }) => run.keys],
  ["trace", "text", ({ run }) => run.trace ?? null]
]
const fuller: Columns<Insert> = [...fresh, ...told]

/** A new run with an identity key. */
type Claiming = Insert & { readonly claim: Claim }
const claimed: Columns<Claiming> = [
  ["partition_id", "integer", (_, batch) => batch.partitionId],
  ["task", "text", ({ run }) => run.task],
  ["key", "text", ({ claim }) => claim.key],
  ["run_id", "uuid", ({ run }) => run.id],
  ["expires_at", "float8", ({ claim }) => claim.expiresAt],
  ["first_at", "float8", ({ claim }) => claim.firstAt],
  // No run has the id of zeroes: that of no run.
  ["replaces", "uuid", ({ claim }) => claim.replaces ?? noId]
]
const noId = "00000000-0000-0000-0000-000000000000"

const progress: Columns<Omit<RunUpdate, "id">> = [
  ["attempt", "integer", (run) => run.attempt],
  ["crashes", "integer", (run) => run.crashes],
  ["lease", "bigint", (run) => run.lease],
  ["worker", "text", (run) => run.worker],
  ["failure", "text", (run) => run.failure],
  ["started_at", "float8", (run) => run.startedAt]
]

const careful: Columns<Insert> = [
  ...fuller,
  ...progress.map(([name, type, of]) =>
    [name, type, ({ run }: Insert, batch: JournalBatch) => of(run, batch)] as const
  ),
  ["origin", "text", ({ origin }) => origin ?? null]
]

const updated: Columns<RunUpdate> = [
  ["id", "uuid", (run) => run.id],
  ["partition_id", "integer", (_, batch) => batch.partitionId],
  ["state", "smallint", (run) => codes[run.state]],
  ["scheduled_at", "float8", (run) => run.scheduledAt],
  ["order_key", "float8", (run) => run.orderKey],
  ...progress
]

/** As `updated`, with what the run was enqueued with. */
type Edited = RunUpdate & { readonly edit: NonNullable<RunUpdate["edit"]> }
const edited: Columns<Edited> = [
  ...updated,
  ["payload", "text", ({ edit }) => edit.payload],
  ["priority", "smallint", ({ edit }) => edit.priority],
  ["task", "text", ({ edit }) => edit.task],
  ["line", "text", ({ edit }) => edit.keys === null ? null : lineOf(edit.task, edit.keys)]
]

/** One row for all. Arrays of arrays cannot differ in length: each is a text, of numbers and ids only. */
const rolled: Columns<StartRoll> = [
  ["partition_id", "integer", (_, batch) => batch.partitionId],
  ["slot", "integer", ({ slot }) => slot],
  ["ids", "text", ({ starts }) => plainArray(starts.map(({ id }) => id))],
  ["attempts", "text", ({ starts }) => plainArray(starts.map(({ attempt }) => attempt))],
  ["leases", "text", ({ starts }) => plainArray(starts.map(({ lease }) => lease))],
  ["started_at", "text", ({ starts }) => plainArray(starts.map(({ startedAt }) => startedAt))],
  ["worker_at", "text", ({ starts }) => plainArray(placesAmong(workersOf(starts), starts))],
  ["workers", "text", ({ starts }) => JSON.stringify([...workersOf(starts).keys()])]
]

const rolledTypes = ["integer", "integer", "uuid[]", "integer[]", "bigint[]", "float8[]", "integer[]", "jsonb"]

/** In the order in which they are first met. */
const workersOf = (starts: StartRoll["starts"]): ReadonlyMap<string, number> => {
  const places = new Map<string, number>()
  for (const { worker } of starts) if (!places.has(worker)) places.set(worker, places.size)
  return places
}

const placesAmong = (workers: ReadonlyMap<string, number>, starts: StartRoll["starts"]): ReadonlyArray<number> =>
  starts.map(({ worker }) => workers.get(worker)!)

const discarded: Columns<RunFinish> = [
  ["id", "uuid", (run) => run.id],
  ["partition_id", "integer", (_, batch) => batch.partitionId]
]

const finished: Columns<RunFinish> = [
  ...discarded,
  ["state", "smallint", (run) => codes[run.state]],
  ["attempt", "integer", (run) => run.attempt],
  ["crashes", "integer", (run) => run.crashes],
  ["worker", "text", (run) => run.worker],
  ["started_at", "float8", (run) => run.startedAt],
  ["result", "text", (run) => run.result],
  ["failure", "text", (run) => run.failure],
  ["kept_days", "smallint", (run) => run.keptDays ?? -1]
]

/** What history takes over from the run as it was. */
export const kept = [
  "id",
  "partition_id",
  "seq",
  "task",
  "priority",
  "created_at",
  "payload",
  "policy",
  "keys",
  "scheduled_at",
  "origin"
]

const list = <A>(columns: Columns<A>, prefix = "") => columns.map(([name]) => prefix + name).join(", ")

/** `is true` makes it a hashed look-up per row; as a join the planner, who expects one partition, compares all pairs. */
const isOpen = (column: string) => `(${column} in (select id from fence)) is true`

/**
 * Ids that are final already. Also asked for requests that claim to be sent for the first time: the first copy can
 * come last, out of a node or a socket that was frozen. `limit 1` keeps it a probe of the index per row: as a join the
 * planner, who has seen the history empty, would read all of it for every commit.
 */
const isNotFinal = (id: string) => `(select true from orrery.run_history h where h.id = ${id} limit 1) is null`

/**
 * The row of the same id. The array says it once more: a join alone may be planned as a walk through a whole index, and
 * where many dead rows are kept, the statistics of a table with few live ones make that look cheap
 * (docs/decisions/0034). `ids`: the place of the array of ids among the values.
 */
const isRowOf = (row: string, change: string, ids: number): string =>
  `${row}.id = ${change}.id and ${row}.id = any($${ids}::uuid[])`

/** What there is to do, by bits. */
const bits = {
  fresh: 1,
  updates: 2,
  finishes: 4,
  careful: 8,
  discards: 16,
  told: 32,
  edits: 64,
  claims: 128,
  inbox: 256,
  rolls: 512
}

const build = (shape: number): string => {
  let places = 2
  const given = <A>(columns: Columns<A>) => columns.map(([, type]) => `$${++places}::${type}[]`).join(", ")
  const parts = [`fence as materialized (
    select p.id from orrery.partitions p
    join unnest($1::integer[], $2::bigint[]) f(id, epoch) on p.id = f.id and p.epoch = f.epoch
    where p.id = any($1::integer[])
    for share of p
  )`]
  const hasClaims = (shape & bits.claims) > 0
  if (hasClaims) {
    const again = claimed.slice(3).map(([name]) => `${name} = excluded.${name}`).join(", ")
    parts.push(
      `claims as materialized (select * from unnest(${given(claimed)}) c(${list(claimed)}))`,
      `claimed as (
        insert into orrery.run_identities as held (${list(claimed)})
        select ${list(claimed)} from claims where ${isOpen("partition_id")}
        on conflict (partition_id, task, key) do update set ${again}
        where held.run_id = excluded.replaces or held.run_id = excluded.run_id
        returning run_id
      )`
    )
  }
  const mayBeMade = hasClaims
    ? "and (i.id not in (select run_id from claims) or i.id in (select run_id from claimed))"
    : ""
  if ((shape & bits.fresh) > 0) {
    const columns = (shape & bits.told) > 0 ? fuller : fresh
    const rows = given(columns)
    // Ids grow with time, so a batch is a narrow range of them: nearly always nothing in it has ended yet.
    const range = `h.id between $${++places}::uuid and $${++places}::uuid`
    parts.push(
      `past as materialized (select exists (
        select from orrery.run_history h where ${range}
      ) as holds_some)`,
      `made as (
        insert into orrery.runs (${list(columns)})
        select ${list(columns, "i.")} from unnest(${rows}) i(${list(columns)})
        where ${isOpen("i.partition_id")} and (not (select holds_some from past) or ${isNotFinal("i.id")}) ${mayBeMade}
        returning 1
      )`
    )
  }
  if ((shape & bits.careful) > 0) {
    parts.push(`made as (
      insert into orrery.runs (${list(careful)})
      select ${list(careful, "i.")} from unnest(${given(careful)}) i(${list(careful)})
      where ${isOpen("i.partition_id")} and ${isNotFinal("i.id")} ${mayBeMade}
      on conflict (id) do nothing
      returning 1
    )`)
  }
  if ((shape & bits.inbox) > 0) {
    const ids = places + 1
    parts.push(
      `moving as materialized (
        select * from unnest(${given(fuller)}) i(${list(fuller)}) where ${isOpen("i.partition_id")} ${mayBeMade}
      )`,
      `taken as (delete from orrery.inbox b using moving m where ${isRowOf("b", "m", ids)} returning b.id)`,
      `moved as (
        insert into orrery.runs (${list(fuller)})
        select ${list(fuller, "m.")} from moving m
        where (m.id in (select id from taken)) is true and ${isNotFinal("m.id")}
        on conflict (id) do nothing
        returning 1
      )`
    )
  }
  const change = <A>(name: string, columns: Columns<A>): void => {
    const set = columns.slice(2).map(([column]) => `${column} = u.${column}`).join(", ")
    const ids = places + 1
    parts.push(`${name} as (
      update orrery.runs r set ${set} from unnest(${given(columns)}) u(${list(columns)})
      where ${isRowOf("r", "u", ids)} and r.partition_id = u.partition_id and ${isOpen("u.partition_id")}
      returning 1
    )`)
  }
  if ((shape & bits.updates) > 0) change("changed", updated)
  if ((shape & bits.edits) > 0) change("edited", edited)
  if ((shape & bits.finishes) > 0) {
    const end = finished.slice(2).map(([name]) => name)
    const ids = places + 1
    parts.push(
      `gone as (
        delete from orrery.runs r using unnest(${given(finished)}) f(${list(finished)})
        where ${isRowOf("r", "f", ids)} and r.partition_id = f.partition_id and ${isOpen("f.partition_id")}
        returning ${[...kept.map((name) => `r.${name}`), ...end.map((name) => `f.${name}`)].join(", ")}
      )`,
      `ended as (
        insert into orrery.run_history (${[...kept, ...end].join(", ")}, finished_at)
        select gone.*, floor(extract(epoch from clock_timestamp()) * 1000)::bigint from gone
      )`
    )
  }
  if ((shape & bits.discards) > 0) {
    const ids = places + 1
    parts.push(`discarded as (
      delete from orrery.runs r using unnest(${given(discarded)}) f(${list(discarded)})
      where ${isRowOf("r", "f", ids)} and r.partition_id = f.partition_id and ${isOpen("f.partition_id")}
    )`)
  }
  if ((shape & bits.rolls) > 0) {
    const values = rolled.map(([name], at) => `s.${name}::${rolledTypes[at]}`).join(", ")
    const again = rolled.slice(2).map(([name]) => `${name} = excluded.${name}`).join(", ")
    parts.push(`rolled as (
      insert into orrery.run_starts (${list(rolled)})
      select ${values} from unnest(${given(rolled)}) s(${list(rolled)}) where ${isOpen("s.partition_id")}
      on conflict (partition_id, slot) do update set ${again}
    )`)
  }
  const count = (mask: number, name: string) => (shape & mask) > 0 ? `(select count(*) from ${name})` : "0"
  return `with ${parts.join(",\n  ")}
    select (select array_agg(id) from fence) as open,
      (${count(bits.fresh | bits.careful, "made")} + ${count(bits.inbox, "moved")})::integer as made,
      (${count(bits.updates, "changed")} + ${count(bits.edits, "edited")})::integer as changed,
      (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
}

const texts: Array<string | undefined> = []
const textOf = (shape: number): string => texts[shape] ??= build(shape)

/** Rows of runs. Where an insert did not happen, or happened before, whoever finds its own `seq` is the one who made it. */
export const whoseRows = (ids: ReadonlyArray<string>): Statement => ({
  name: "orrery_whose_rows",
  text: "select id, partition_id, seq from orrery.runs where id = any($1::uuid[])",
  values: [plainArray(ids)]
})

/** What new runs are made of, when it is all they can be. */
const isFresh = ({ origin, resend, run }: Insert): boolean =>
  !resend && origin === undefined && run.attempt === 0 && run.crashes === 0 && run.lease === 0 && run.worker === null &&
  run.failure === null
  && run.startedAt === null

const isClaiming = (insert: Insert): insert is Claiming => insert.claim !== undefined
const isEdited = (update: RunUpdate): update is Edited => update.edit !== undefined

const isTold = ({ run }: Insert): boolean => run.keys !== null || run.trace !== undefined

/** Batches of one partition must be of one epoch, and at most one of them may change runs. `mayExist`: some of the new runs may be there already. */
export const commitStatement = (batches: ReadonlyArray<JournalBatch>, mayExist = false): Statement => {
  const values: Array<string | Buffer> = [
    plainArray(batches.map((batch) => batch.partitionId)),
    plainArray(batches.map((batch) => batch.epoch))
  ]
  const add = <A>(columns: Columns<A>, changes: (batch: JournalBatch) => ReadonlyArray<A>): void => {
    for (const [, type, of] of columns) {
      const column: Array<string | number | null> = []
      for (const batch of batches) for (const change of changes(batch)) column.push(of(change, batch))
      values.push(arrayOf(type, column))
    }
  }
  let shape = 0
  if (batches.some((batch) => batch.inserts.some(isClaiming))) {
    shape |= bits.claims
    add(claimed, (batch) => batch.inserts.filter(isClaiming))
  }
  const making = batches.filter((batch) => batch.inserts.length > 0 && batch.fromInbox !== true)
  if (making.length > 0) {
    const areFresh = !mayExist && making.every((batch) => batch.inserts.every(isFresh))
    const areTold = areFresh && making.some((batch) => batch.inserts.some(isTold))
    shape |= areFresh ? bits.fresh : bits.careful
    if (areTold) shape |= bits.told
    add(areTold ? fuller : areFresh ? fresh : careful, (batch) => batch.fromInbox === true ? [] : batch.inserts)
    if (areFresh) values.push(...rangeOf(making))
  }
  if (batches.some((batch) => batch.fromInbox === true && batch.inserts.length > 0)) {
    shape |= bits.inbox
    add(fuller, (batch) => batch.fromInbox === true ? batch.inserts : [])
  }
  const areEdited = batches.some((batch) => batch.updates.some(isEdited))
  if (batches.some((batch) => batch.updates.some((each) => !areEdited || !isEdited(each)))) {
    shape |= bits.updates
    add(updated, (batch) => areEdited ? batch.updates.filter((each) => !isEdited(each)) : batch.updates)
  }
  if (areEdited) {
    shape |= bits.edits
    add(edited, (batch) => batch.updates.filter(isEdited))
  }
  const keeps = batches.some((batch) => batch.finishes.some((each) => each.keep))
  const drops = batches.some((batch) => batch.finishes.some((each) => !each.keep))
  const those = (keep: boolean) => {
    if (!keeps || !drops) return (batch: JournalBatch) => batch.finishes
    const lists = new Map(batches.map((batch) => [batch, batch.finishes.filter((each) => each.keep === keep)]))
    return (batch: JournalBatch) => lists.get(batch)!
  }
  if (keeps) {
    shape |= bits.finishes
    add(finished, those(true))
  }
  if (drops) {
    shape |= bits.discards
    add(discarded, those(false))
  }
  if (batches.some((batch) => batch.roll !== undefined)) {
    shape |= bits.rolls
    add(rolled, ({ roll }) => roll === undefined ? [] : [roll])
  }
  return { name: `orrery_commit_${shape}`, text: textOf(shape), values }
}

const arrayOf = (type: Columns<never>[number][1], column: ReadonlyArray<string | number | null>): string | Buffer => {
  if (type === "uuid") return plainArray(column as ReadonlyArray<string>)
  return type === "text"
    ? textArray(column as ReadonlyArray<string | null>)
    : numberArray(type, column as ReadonlyArray<number | null>)
}

/** The lowest and the highest id of the new runs. Ids of one length and case sort as text as they do as numbers. */
const rangeOf = (batches: ReadonlyArray<JournalBatch>): [string, string] => {
  let low: string | undefined
  let high = ""
  for (const { inserts } of batches) {
    for (const { run } of inserts) {
      if (low === undefined || run.id < low) low = run.id
      if (run.id > high) high = run.id
    }
  }
  return [low!, high]
}
