/**
 * The PostgreSQL under fault: a server of its own for a harness, durable, and a new database for each scenario, which the nodes
 * use as a plain role that owns it and nothing else. Histories of clients and workers lie in files: nothing that is done to
 * the server touches them.
 */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import { Effect, Redacted, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import { join } from "node:path"
import * as Database from "./Database.js"

export interface Postgres {
  readonly server: EmbeddedPostgres.EmbeddedPostgres
  /** An empty database with the schema of the product; dropped with the scope unless it is to be kept. */
  readonly freshDatabase: (name: string) => Effect.Effect<FreshDatabase, Database.HarnessFailed, Scope.Scope>
}

export interface FreshDatabase {
  readonly name: string
  /** Of a superuser. */
  readonly admin: Redacted.Redacted<string>
  /** Of the nodes. */
  readonly nodes: Redacted.Redacted<string>
}

const role = "chaos_nodes"
const prefix = "chaos_"
/** Harnesses at the same time on one checkout; each has a folder, and so a server, of its own. */
const serversMax = 8

export const start = (folder: string): Effect.Effect<Postgres, Database.HarnessFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* startServer(folder, 0)
    const password = randomBytes(24).toString("base64url")
    yield* dropLeftovers(server)
    yield* Database.script(
      server.url,
      `do $$ begin
        if not exists (select from pg_roles where rolname = '${role}') then create role ${role} login; end if;
      end $$;
      alter role ${role} with login password '${password}'`
    )
    return { server, freshDatabase: (name) => freshDatabase(server, password, `${prefix}${name}`) }
  })

const startServer = (
  folder: string,
  n: number
): Effect.Effect<EmbeddedPostgres.EmbeddedPostgres, Database.HarnessFailed, Scope.Scope> =>
  EmbeddedPostgres.start({ dataDir: join(folder, `pg-${n}`), durable: true }).pipe(
    Effect.catchAll((failure) =>
      failure.reason === "InUse" && n + 1 < serversMax
        ? startServer(folder, n + 1)
        : new Database.HarnessFailed({ doing: "starting PostgreSQL", cause: failure })
    )
  )

const freshDatabase = (server: EmbeddedPostgres.EmbeddedPostgres, password: string, name: string) =>
  Effect.gen(function*() {
    const failed = (cause: unknown) => new Database.HarnessFailed({ doing: `creating database ${name}`, cause })
    const admin = yield* Effect.acquireRelease(
      EmbeddedPostgres.createDatabase(server, name).pipe(Effect.mapError(failed)),
      () => Effect.ignore(EmbeddedPostgres.dropDatabase(server, name))
    )
    yield* Database.script(admin, `alter database ${name} owner to ${role}`)
    const url = new URL(Redacted.value(admin))
    url.username = role
    url.password = password
    const nodes = Redacted.make(url.href)
    yield* PgMigrations.run.pipe(
      Effect.provide(PgPools.layer({ url: nodes, journalConnections: 1, readConnections: 1 })),
      Effect.mapError(failed)
    )
    return { name, admin, nodes }
  })

const dropLeftovers = (server: EmbeddedPostgres.EmbeddedPostgres) =>
  EmbeddedPostgres.execute(server.url, `select datname from pg_database where starts_with(datname, '${prefix}')`).pipe(
    Effect.flatMap((found) =>
      Effect.forEach(found, ({ datname }) => EmbeddedPostgres.dropDatabase(server, String(datname)), { discard: true })
    ),
    Effect.mapError((cause) => new Database.HarnessFailed({ doing: "dropping old databases", cause }))
  )
