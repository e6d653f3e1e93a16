/**
 * The PostgreSQL that all systems are measured on: one of our own, or the one of `DATABASE_URL`. A database for each
 * measurement, and what the server spent on it.
 */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Config, Data, Effect, Option, type Redacted, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import * as path from "node:path"
import pg from "pg"

/** A store keeps less than it must: a figure on it would say nothing beside the others. */
export class UnequalDurability extends Data.TaggedError("UnequalDurability")<{
  readonly store: string
  readonly problems: ReadonlyArray<string>
}> {
  override get message() {
    return `unequal durability: ${this.store} has ${this.problems.join(", ")}; `
      + "what an acknowledged job survives must be the same for all, so this is refused and not compared"
  }
}

/** The server did not do what the benchmark asked of it. */
export class PostgresFailed extends Data.TaggedError("PostgresFailed")<{ readonly reason: string }> {
  override get message() {
    return `PostgreSQL: ${this.reason}`
  }
}

export interface BenchPostgres {
  readonly url: Redacted.Redacted<string>
  /** Of the server process; none when it is not on this machine, or not ours to look at. */
  readonly pid: Option.Option<number>
}

/** What a server has spent so far; subtract two. */
export interface ServerCounters {
  /** Of all its processes, µs, to the next 10 ms. */
  readonly cpuUs: Option.Option<number>
  readonly walBytes: number
  /** In the database asked about, since it was made. */
  readonly statements: Option.Option<number>
  /** Inserted, updated and deleted there. Complete once its connections have ended. */
  readonly rows: number
}

/** Names of our databases begin so; those that a killed run left are dropped at the next start. */
const databasePrefix = "orrery_bench_"

const serverSettings = {
  // As on the machine the peers were tuned on.
  shared_buffers: "512MB",
  // Counts statements: some 1 µs each, for every system.
  shared_preload_libraries: "pg_stat_statements"
}

/** Starts the embedded server in `dataDir`, or takes the one of `DATABASE_URL`. */
export const start = (
  dataDir: string
): Effect.Effect<BenchPostgres, EmbeddedPostgres.EmbeddedPostgresFailed | PostgresFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const given = yield* Config.option(Config.redacted("DATABASE_URL")).pipe(Effect.orDie)
    const server: BenchPostgres = Option.isSome(given)
      ? { url: given.value, pid: Option.none() }
      : yield* Effect.map(
        EmbeddedPostgres.start({ dataDir: path.resolve(dataDir), durable: true, settings: serverSettings }),
        ({ pid, url }) => ({ url, pid: Option.some(pid) })
      )
    yield* dropLeftovers(server)
    // Not everywhere installed, and not everywhere loaded: without it statements are not counted.
    yield* Effect.ignore(query(server.url, "create extension if not exists pg_stat_statements"))
    return server
  })

const dropLeftovers = (server: BenchPostgres) =>
  Effect.gen(function*() {
    const left = yield* query(
      server.url,
      // A database somebody is connected to belongs to a run beside this one.
      `select datname as name from pg_database d where starts_with(datname, '${databasePrefix}')
         and not exists (select 1 from pg_stat_activity a where a.datid = d.oid)`
    )
    yield* Effect.forEach(left, ({ name }) => drop(server, String(name)), { discard: true })
  })

/** One statement on a connection of its own. */
export const query = (url: Redacted.Redacted<string>, text: string) =>
  Effect.mapError(
    EmbeddedPostgres.execute(url, text),
    (cause) => new PostgresFailed({ reason: cause instanceof Error ? cause.message : String(cause) })
  )

/** An empty database; dropped with the scope, whoever is still connected. */
export const freshDatabase = (
  server: BenchPostgres
): Effect.Effect<{ readonly name: string; readonly url: Redacted.Redacted<string> }, PostgresFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function*() {
      const name = databasePrefix + randomBytes(6).toString("hex")
      yield* query(server.url, `create database ${pg.escapeIdentifier(name)}`)
      return { name, url: EmbeddedPostgres.urlOfDatabase(server.url, name) }
    }),
    ({ name }) => Effect.ignoreLogged(drop(server, name))
  )

const drop = (server: BenchPostgres, name: string) =>
  query(server.url, `drop database if exists ${pg.escapeIdentifier(name)} with (force)`)

/** Before each measurement: nobody pays for what was written before. */
export const checkpoint = (server: BenchPostgres) => query(server.url, "checkpoint")

/** What the report says of the server; the first three decide what an acknowledged job survives. */
const reported = [
  ...["fsync", "synchronous_commit", "full_page_writes", "server_version", "shared_buffers", "max_connections"],
  ...["max_wal_size", "wal_level", "autovacuum"]
]

export type Settings = Readonly<Record<string, string>>

/** As sessions on this database get them, by `show`. */
export const settings = (url: Redacted.Redacted<string>): Effect.Effect<Settings, PostgresFailed> =>
  Effect.map(
    query(url, `select ${reported.map((name) => `current_setting('${name}') as ${name}`).join(", ")}`),
    ([row]) => Object.fromEntries(reported.map((name) => [name, String(row?.[name])]))
  )

/** What a crash of the server, or of the machine, may take: empty when that is nothing. */
export const durabilityProblems = (found: Settings): ReadonlyArray<string> =>
  ["fsync", "synchronous_commit", "full_page_writes"].flatMap((name) =>
    found[name] === "off" ? [`${name} = off (must be on)`] : []
  )

/** Refuses a database on which a commit may be lost. */
export const requireDurable = (
  url: Redacted.Redacted<string>
): Effect.Effect<Settings, PostgresFailed | UnequalDurability> =>
  Effect.flatMap(settings(url), (found) => {
    const problems = durabilityProblems(found)
    return problems.length === 0
      ? Effect.succeed(found)
      : new UnequalDurability({ store: `PostgreSQL ${found["server_version"]}`, problems })
  })

export const counters = (server: BenchPostgres, database: string): Effect.Effect<ServerCounters, PostgresFailed> =>
  Effect.gen(function*() {
    const name = pg.escapeLiteral(database)
    const [row] = yield* query(
      server.url,
      `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal,
         (tup_inserted + tup_updated + tup_deleted)::float8 as rows
       from pg_stat_database where datname = ${name}`
    )
    const statements = yield* Effect.option(query(
      server.url,
      `select coalesce(sum(calls), 0)::float8 as calls from pg_stat_statements
         where dbid = (select oid from pg_database where datname = ${name})`
    ))
    return {
      cpuUs: Option.map(server.pid, treeCpuUs),
      walBytes: Number(row?.["wal"]),
      statements: Option.map(statements, ([found]) => Number(found?.["calls"])),
      rows: Number(row?.["rows"])
    }
  })

/** Linux counts CPU time in 10 ms, whatever the kernel's own tick. */
const tickUs = 10_000

/** Of a process and its children, those included that have ended. 0 where there is no `/proc`. */
export const treeCpuUs = (pid: number): number => {
  const own = stat(pid)
  if (own === undefined) return 0
  const children = readdirSync("/proc").flatMap((name) => /^\d+$/.test(name) ? [stat(Number(name))] : [])
    .filter((each) => each?.parent === pid)
  return (own.ticks + own.childTicks + children.reduce((sum, each) => sum + (each?.ticks ?? 0), 0)) * tickUs
}

/** The name in the second field may hold spaces and brackets: fields are counted from its end. */
const stat = (pid: number) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ").map(Number)
    // state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime
    return { parent: fields[1], ticks: fields[11]! + fields[12]!, childTicks: fields[13]! + fields[14]! }
  } catch {
    return undefined
  }
}
