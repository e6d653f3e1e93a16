/** `orrery migrate`: brings the database schema up to date. Nodes do the same at start; this is for deploys that do it before. */
import { Command } from "@effect/cli"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import { Console, Effect } from "effect"
import { DatabaseUnavailable } from "./Database.js"
import * as options from "./options.js"

const migrate = (json: boolean) =>
  Effect.gen(function*() {
    const { databaseUrl } = yield* NodeConfig.NodeConfig
    yield* PgMigrations.run.pipe(
      Effect.provide(PgPools.layer({ url: databaseUrl, journalConnections: 1, readConnections: 1 })),
      Effect.mapError((cause) => new DatabaseUnavailable({ operation: "migrating", cause }))
    )
    yield* Console.log(json ? JSON.stringify({ migrated: true }) : "the database is up to date")
  }).pipe(Effect.provide(NodeConfig.layerConfig))

export const command = Command.make("migrate", { json: options.json }, ({ json }) => migrate(json)).pipe(
  Command.withDescription(
    "Bring the schema of the database (ORRERY_DATABASE_URL) up to date. Safe to run from many places at once, and again."
  )
)
