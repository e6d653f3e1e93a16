/**
 * Vitest `globalSetup`: one PostgreSQL for a whole run. `DATABASE_URL` names one to use instead; its user must be
 * allowed to create databases.
 *
 * Vitest loads this file once per test project, so the server is counted in a place all loads share. A run that was
 * killed leaves a folder and perhaps a server; the next run takes the folder over and drops what is left in it.
 */
import {
  createDatabase,
  dropDatabase,
  type EmbeddedPostgres,
  type EmbeddedPostgresFailed,
  execute,
  start
} from "@orrery/store-pg/EmbeddedPostgres"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import { Effect, Exit, Redacted, Scope } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import type { TestProject } from "vitest/node"

declare module "vitest" {
  export interface ProvidedContext {
    /** Url of a user that may create databases. */
    readonly orreryAdminUrl: string
    /** Name of a database with the schema in it, for copies. Nobody is connected to it. */
    readonly orreryTemplate: string
  }
}

/** Names of test databases begin so; a run drops those that a killed run left. */
export const databasePrefix = "orrery_test_"

interface Shared {
  users: number
  server: Promise<Started> | undefined
}
interface Server {
  readonly url: string
  readonly close: () => Promise<void>
}
interface Started extends Server {
  readonly template: string
}

const key = Symbol.for("@orrery/testing/globalPostgres")
const shared = ((globalThis as { [key]?: Shared })[key] ??= { users: 0, server: undefined })

/** Runs of vitest at the same time on one checkout; each has a folder of its own. */
const runsMax = 8

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  shared.users += 1
  shared.server ??= (given() ?? Effect.runPromise(embedded(0))).then(withTemplate)
  const server = await shared.server
  project.provide("orreryAdminUrl", server.url)
  project.provide("orreryTemplate", server.template)
  return async () => {
    shared.users -= 1
    if (shared.users > 0) return
    shared.server = undefined
    await server.close()
  }
}

const given = (): Promise<Server> | undefined => {
  const url = process.env["DATABASE_URL"]
  return url === undefined || url === "" ? undefined : Promise.resolve({ url, close: () => Promise.resolve() })
}

const embedded = (run: number): Effect.Effect<Server, EmbeddedPostgresFailed> => {
  const dataDir = path.resolve(import.meta.dirname, `../../../.orrery/test/run-${run}/pg`)
  return Effect.gen(function*() {
    const scope = yield* Scope.make()
    const server = yield* start({ dataDir, durable: false }).pipe(
      Scope.extend(scope),
      Effect.tap(dropLeftovers),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    return { url: Redacted.value(server.url), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
  }).pipe(Effect.catchIf(
    ({ reason }) => run + 1 < runsMax && (reason === "InUse" || reason === "Unusable"),
    (failure) =>
      // Written without waiting for the disk, so a power cut may damage it; nothing in it is worth keeping.
      Effect.promise(() => fs.rm(dataDir, { recursive: true, force: true })).pipe(
        Effect.when(() => failure.reason === "Unusable"),
        Effect.zipRight(embedded(run + 1))
      )
  ))
}

/** Migrating takes longer than copying what was migrated once. */
const withTemplate = async ({ close, url }: Server): Promise<Started> => {
  const server = { url: Redacted.make(url) }
  const template = `${databasePrefix}template_${randomBytes(6).toString("hex")}`
  const make = Effect.flatMap(
    createDatabase(server, template),
    (made) => Effect.provide(PgMigrations.run, PgPools.layer({ url: made }))
  )
  try {
    await Effect.runPromise(make)
  } catch (error) {
    await close()
    throw error
  }
  return { url, template, close: () => Effect.runPromise(Effect.orDie(dropDatabase(server, template))).finally(close) }
}

const dropLeftovers = (server: EmbeddedPostgres) =>
  Effect.gen(function*() {
    const found = yield* execute(
      server.url,
      `select datname from pg_database where starts_with(datname, '${databasePrefix}')`
    )
    yield* Effect.forEach(found, ({ datname }) => dropDatabase(server, String(datname)))
  }).pipe(Effect.orDie)
