/** `orrery migrate`: brings the database schema up to date. Nodes do the same at start; this is for deploys that do it before. */
import { Command, Options } from "@effect/cli"
import * as DatabaseRecord from "@orrery/cluster/DatabaseRecord"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import { Console, Effect, Layer } from "effect"
import { DatabaseUnavailable } from "./Database.js"
import * as options from "./options.js"

const acceptRestore = DatabaseRecord.accept.pipe(
  Effect.catchTag("SqlError", (cause) => new DatabaseUnavailable({ operation: "accepting the database", cause }))
)

const migrate = ({ accept, json }: { readonly accept: boolean; readonly json: boolean }) =>
  Effect.gen(function*() {
    const { databaseUrl } = yield* NodeConfig.NodeConfig
    const incarnation = yield* PgMigrations.run.pipe(
      Effect.mapError((cause) => new DatabaseUnavailable({ operation: "migrating", cause })),
      Effect.zipRight(
        accept ? Effect.map(acceptRestore, (recorded) => recorded.incarnation) : Effect.succeed(undefined)
      ),
      Effect.provide(
        PgPools.layer({ url: databaseUrl, journalConnections: 1, readConnections: 1 }).pipe(
          Layer.mapError((cause) => new DatabaseUnavailable({ operation: "connecting", cause }))
        )
      )
    )
    if (json) return yield* Console.log(JSON.stringify({ migrated: true, ...(accept ? { incarnation } : {}) }))
    yield* Console.log("the database is up to date")
    if (accept) yield* Console.log(`accepted as it is: nodes may start (incarnation ${incarnation})`)
  }).pipe(Effect.provide(NodeConfig.layerConfig))

const accept = Options.boolean("accept-restore").pipe(
  Options.withDescription(
    "The database was restored or moved, and is the one to go on with: what nodes remember of the one before is given up. "
      + "All nodes must be stopped. Runs acknowledged since the backup was made are missing (docs/decisions/0009)."
  )
)

export const command = Command.make("migrate", { accept, json: options.json }, migrate).pipe(
  Command.withDescription(
    "Bring the schema of the database (ORRERY_DATABASE_URL) up to date. Safe to run from many places at once, and again."
  )
)
