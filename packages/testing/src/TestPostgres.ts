/** Empty databases for tests on the server that `globalPostgres.ts` started for this run. */
import { createDatabase, dropDatabase } from "@orrery/store-pg/EmbeddedPostgres"
import { Effect, Redacted, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import { inject } from "vitest"
import { databasePrefix } from "./globalPostgres.js"

/** The server's own url, for tests about the server: limits, several databases. */
export const adminUrl: Effect.Effect<Redacted.Redacted<string>> = Effect.sync(() =>
  Redacted.make(inject("orreryAdminUrl"))
)

/** Url of a database of its own, empty; dropped with all its connections when the scope closes. */
export const freshDatabase: Effect.Effect<Redacted.Redacted<string>, never, Scope.Scope> = Effect.suspend(() =>
  databaseLike(undefined)
)

/** As `freshDatabase`, with the schema in it, as a node leaves it that has just started. */
export const migratedDatabase: Effect.Effect<Redacted.Redacted<string>, never, Scope.Scope> = Effect.suspend(() =>
  databaseLike(inject("orreryTemplate"))
)

const databaseLike = (template: string | undefined) =>
  Effect.gen(function*() {
    const server = { url: yield* adminUrl }
    const name = databasePrefix + randomBytes(6).toString("hex")
    return yield* Effect.acquireRelease(
      createDatabase(server, name, template),
      () => Effect.orDie(dropDatabase(server, name))
    )
  }).pipe(Effect.orDie)
