/**
 * Connections to PostgreSQL, in pools by role, each with a budget; so that no kind of work can starve another.
 *
 *   journal   group commits; each connection is held by one lane of `PgJournal`. Direct, not through a pooler: named
 *             prepared statements, and a lane ends the session it has lost by its process id
 *   read      pages, takeovers, lists, migrations. Also the primary: an actor must see what was committed
 *
 * The pools are built here and not by @effect/sql-pg, which has no setting for keep-alive or for time limits: without
 * them a dead socket holds a query for hours.
 */
import { type SqlClient, SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import Pg from "pg"

export interface PoolOptions {
  /** Part of `application_name`: `orrery-<role>`. */
  readonly role: string
  /** Whose connections these are: the end of `application_name`, `orrery-<role>-<owner>`. With the role at most 50 characters. */
  readonly owner?: string
  /** `postgres://user:password@host:port/database?sslmode=...`; its `options` are kept. */
  readonly url: Redacted.Redacted
  readonly max: number
  /** Enforced by the server. */
  readonly statementTimeoutMs: number
  /** Enforced here, also when the server is gone without a word. The statement may run on; its connection is dropped. */
  readonly queryTimeoutMs: number
  /** The server ends a session that has been idle for this long, and frees its locks. */
  readonly idleSessionTimeoutMs?: number
  /** A connection that has not been used for so long is closed. Default 10 s. */
  readonly idleTimeoutMs?: number
  /** Statements are sent without waiting for the answers before them. */
  readonly pipeline?: boolean
  /** Extra session settings, `-c name=value`; no spaces in values. */
  readonly settings?: Readonly<Record<string, string | number>>
}

/** What `pg_stat_activity` calls the connections of a pool. */
export const applicationName = (role: string, owner?: string): string =>
  owner === undefined ? `orrery-${role}` : `orrery-${role}-${owner}`

/** Wait for a free connection, dialling included. */
const connectTimeoutMs = 5_000
/** Silent sockets are probed after this long, so that a vanished server is noticed. */
const keepAliveAfterMs = 5_000
/** Wait for connections to end when a pool is closed. */
const endTimeout = "2 seconds"

/** A pool that is ended with the scope. Connects on demand. `bigint` is read as a number: ours stay below 2^53. */
export const makePool = (options: PoolOptions): Effect.Effect<Pg.Pool, SqlError.SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const pool = new Pg.Pool(poolConfig(options))
        // An idle connection that breaks is replaced on the next use; unheard, the event would end the process.
        pool.on("error", () => undefined)
        return pool
      },
      // The error of the parser quotes the URL, password included.
      catch: () =>
        new SqlError.SqlError({ cause: undefined, message: `pool ${options.role}: the database URL cannot be used` })
    }),
    (pool) =>
      Effect.promise(() => pool.end().catch(() => undefined)).pipe(
        Effect.interruptible,
        Effect.timeoutOption(endTimeout)
      )
  )

const poolConfig = (options: PoolOptions): Pg.PoolConfig => {
  const settings = {
    statement_timeout: options.statementTimeoutMs,
    timezone: "UTC",
    ...(options.idleSessionTimeoutMs === undefined ? {} : { idle_session_timeout: options.idleSessionTimeoutMs }),
    ...options.settings
  }
  const ours = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`)
  const url = new URL(Redacted.value(options.url))
  // What the URL says wins in node-postgres over fields next to it, so ours go into the URL.
  const given = url.searchParams.get("options")
  url.searchParams.set("options", [...(given === null ? [] : [given]), ...ours].join(" "))
  url.searchParams.set("application_name", applicationName(options.role, options.owner))
  return {
    connectionString: url.href,
    max: options.max,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveAfterMs,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: options.queryTimeoutMs,
    types: { getTypeParser },
    ...(options.idleTimeoutMs === undefined ? {} : { idleTimeoutMillis: options.idleTimeoutMs }),
    ...(options.pipeline === true ? { pipeline: true } : {})
  }
}

const bigintOid = 20
const getTypeParser =
  ((oid: number, format?: "text") =>
    oid === bigintOid ? Number : Pg.types.getTypeParser(oid, format)) as typeof Pg.types.getTypeParser

export interface PoolsConfig {
  readonly url: Redacted.Redacted
  /** See `PoolOptions.owner`. */
  readonly owner?: string
  /** Default 2: while one commit waits for the disk the next one is sent. */
  readonly journalConnections?: number
  /** Default 4. */
  readonly readConnections?: number
}

/** Longest commit of the journal: the server then gives it up. */
const journalTimeoutMs = 10_000
const readTimeoutMs = 15_000
const readIdleMs = 5 * 60_000
/** The client waits longer than the server, so that normally the server says what became of a statement. */
const graceMs = 1_000

/**
 * Every statement has an index made for it. The planner must take it also when its statistics are of another time, as
 * those of a table that fills and empties all day always are.
 */
const byIndex = { enable_seqscan: "off", enable_bitmapscan: "off", enable_mergejoin: "off", enable_sort: "off" }
/**
 * Planned once per connection: the plan never depends on the values. Rows are found by an array of ids, then hashed: a loop
 * would compare all pairs of a batch.
 */
const journalSettings = { ...byIndex, enable_nestloop: "off", plan_cache_mode: "force_generic_plan" }

export class PgPools extends Context.Tag("@orrery/store-pg/PgPools")<PgPools, {
  readonly journal: Pg.Pool
  readonly journalConnections: number
  readonly read: Pg.Pool
}>() {}

const make = Effect.fn("PgPools.make")(function*(config: PoolsConfig) {
  const journalConnections = config.journalConnections ?? 2
  const owner = config.owner === undefined ? {} : { owner: config.owner }
  const journal = yield* makePool({
    role: "journal",
    ...owner,
    url: config.url,
    max: journalConnections,
    statementTimeoutMs: journalTimeoutMs,
    queryTimeoutMs: journalTimeoutMs + graceMs,
    settings: journalSettings
  })
  const read = yield* makePool({
    role: "read",
    ...owner,
    url: config.url,
    max: config.readConnections ?? 4,
    statementTimeoutMs: readTimeoutMs,
    queryTimeoutMs: readTimeoutMs + graceMs,
    // A take-over is a row of statements in one round trip; many come at once, and none should have to dial first.
    pipeline: true,
    idleTimeoutMs: readIdleMs,
    settings: byIndex
  })
  return PgPools.of({ journal, journalConnections, read })
})

/** Also provides `SqlClient` on the read pool, for what is not hot. Connects on first use. */
export const layer = (
  config: PoolsConfig
): Layer.Layer<PgPools | SqlClient.SqlClient | PgClient.PgClient, SqlError.SqlError> => {
  const client = Layer.unwrapEffect(
    Effect.map(PgPools, ({ read }) => PgClient.layerFromPool({ acquire: Effect.succeed(read) }))
  )
  return Layer.provideMerge(client, Layer.scoped(PgPools, make(config)))
}
