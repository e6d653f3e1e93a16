/**
 * What a database knows of itself and of the cluster it belongs to, in `orrery.cluster_settings`:
 *
 *   database   the server and database it was recorded on, its timeline, and an incarnation that only an operator renews
 *   halted     why nodes refuse to run on it, until an operator has accepted it
 *   endKey     by which ends kept outside of it are known to be genuine (`Ends`); another one after an acceptance
 *
 * The rules are in `DatabaseMemory` (docs/decisions/0009).
 */
import { SqlClient, type SqlError } from "@effect/sql"
import { Data, Effect, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"

export const Recorded = Schema.Struct({
  incarnation: Schema.String,
  /** Incarnations that an operator has given up for this one, the latest first. */
  previous: Schema.Array(Schema.String),
  /** `system_identifier` of the server: made by initdb, kept by copies of its files. `null`: the user may not read it. */
  system: Schema.NullOr(Schema.String),
  /** Number of the database on its server: a copy made by SQL has another one. */
  database: Schema.Number,
  /** Grows when a standby is promoted, and when a backup is recovered. */
  timeline: Schema.NullOr(Schema.Number)
})
export type Recorded = typeof Recorded.Type

export interface Found {
  readonly recorded: Recorded | undefined
  readonly halted: string | undefined
  readonly actual: Pick<Recorded, "system" | "database" | "timeline">
  /** Sum of the epochs of all partitions: it only grows. */
  readonly epochs: number
  /** Whether the node that asks is still written down. */
  readonly knowsNode: boolean
}

export const endKeySetting = "endKey"

/** Epochs given up when a database is accepted: more than it can have lost since the backup was made. */
export const epochsSkipped = 2 ** 16
const previousMax = 32
/** Of the sessions that hold a node's shard locks. */
const lockSessions = "orrery-lock-%"

const decode = Schema.decodeUnknownOption(Schema.parseJson(Recorded))

/** `system` needs a right that a user may lack; the timeline cannot be read on some services. */
const actualOf = (sql: SqlClient.SqlClient) => {
  const database = sql<{ database: number }>`
    select oid::bigint as database from pg_database where datname = current_database()`
  const system = sql<{ system: string }>`select system_identifier::text as system from pg_control_system()`
  const timeline = sql<{ timeline: number }>`
    select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint as timeline`
  return Effect.all({
    database: Effect.map(database, ([row]) => Number(row!.database)),
    system: orNull(Effect.map(system, ([row]) => row!.system)),
    timeline: orNull(Effect.map(timeline, ([row]) => Number(row!.timeline)))
  })
}

const codeOf = (error: SqlError.SqlError): unknown =>
  typeof error.cause === "object" && error.cause !== null && "code" in error.cause ? error.cause.code : undefined

/** Not allowed, or not there. */
const denied: ReadonlyArray<unknown> = ["42501", "42883", "0A000"]
const orNull = <A>(ask: Effect.Effect<A, SqlError.SqlError>): Effect.Effect<A | null, SqlError.SqlError> =>
  Effect.catchIf(ask, (error) => denied.includes(codeOf(error)), () => Effect.succeed(null))

/** No such table or schema: this is another database altogether. */
export const isEmptied = (error: SqlError.SqlError): boolean => ["42P01", "3F000"].includes(String(codeOf(error)))

export const read = (nodeId: string): Effect.Effect<Found, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const actual = yield* actualOf(sql)
    const [row] = yield* sql<
      { recorded: string | null; halted: string | null; epochs: string; knows: boolean }
    >`select
        (select value::text from orrery.cluster_settings where key = 'database') as recorded,
        (select value #>> '{}' from orrery.cluster_settings where key = 'halted') as halted,
        (select coalesce(sum(epoch), 0)::text from orrery.partitions) as epochs,
        exists (select from orrery.nodes where node_id = ${nodeId}::uuid) as knows`
    return {
      recorded: row!.recorded === null ? undefined : Option.getOrUndefined(decode(row!.recorded)),
      halted: row!.halted ?? undefined,
      actual,
      epochs: Number(row!.epochs),
      knowsNode: row!.knows
    }
  })

/** Writes down a database that was not yet. Many nodes may do it at once: the first counts. */
export const record = (actual: Found["actual"]): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const value = JSON.stringify({ ...actual, incarnation: randomUUID(), previous: [] } satisfies Recorded)
    return sql`insert into orrery.cluster_settings (key, value) values ('database', ${value}::jsonb)
      on conflict (key) do nothing`
  }).pipe(Effect.asVoid)

/** A standby has taken over, which the operator has said is right. */
export const recordTimeline = (timeline: number): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql`update orrery.cluster_settings
      set value = jsonb_set(value, '{timeline}', to_jsonb(greatest((value ->> 'timeline')::bigint, ${timeline}::bigint)))
      where key = 'database'`).pipe(Effect.asVoid)

/** From now on no node starts on this database. */
export const halt = (reason: string): Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql`insert into orrery.cluster_settings (key, value) values ('halted', to_jsonb(${reason}::text))
      on conflict (key) do nothing`
  ).pipe(Effect.asVoid)

/** They would go on under epochs that an acceptance gives up. */
export class NodesAlive extends Data.TaggedError("NodesAlive")<{ readonly nodes: number }> {
  override get message() {
    return `${this.nodes} nodes are at work on this database: all must be stopped first`
  }
}

/**
 * The operator takes the database as it is: a new incarnation, epochs beyond all that was given out before, whatever was
 * lost, and nodes may start. One transaction.
 */
export const accept: Effect.Effect<Recorded, SqlError.SqlError | NodesAlive, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql.withTransaction(acceptWith(sql))
)

const acceptWith = (sql: SqlClient.SqlClient) =>
  Effect.gen(function*() {
    const [alive] = yield* sql<{ nodes: number }>`
      select count(distinct application_name)::integer as nodes from pg_stat_activity
      where application_name like ${lockSessions} and datname = current_database()`
    if (alive!.nodes > 0) return yield* new NodesAlive({ nodes: alive!.nodes })
    const actual = yield* actualOf(sql)
    const [row] = yield* sql<{ value: string }>`
      select value::text as value from orrery.cluster_settings where key = 'database' for update`
    const before = row === undefined ? undefined : Option.getOrUndefined(decode(row.value))
    const recorded: Recorded = {
      ...actual,
      incarnation: randomUUID(),
      previous: before === undefined ? [] : [before.incarnation, ...before.previous].slice(0, previousMax)
    }
    yield* sql`insert into orrery.cluster_settings (key, value) values ('database', ${JSON.stringify(recorded)}::jsonb)
      on conflict (key) do update set value = excluded.value`
    for (const table of ["partitions", "schedule_partitions"]) {
      yield* sql`update ${sql(`orrery.${table}`)}
        set epoch = epoch + ${epochsSkipped}::bigint, owner = 'nobody', taken_at = now()`
    }
    yield* sql`delete from orrery.nodes`
    // With the key of the ends that were kept outside: some may be of runs that are lost.
    yield* sql`delete from orrery.cluster_settings where key in ('halted', ${endKeySetting})`
    return recorded
  })
