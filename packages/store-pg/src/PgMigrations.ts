/**
 * Brings the schema up to date. Safe to run from every node at once: one at a time does the work, and each pending
 * migration is applied once. Migrations expand first and contract in a later release, so that old and new nodes run
 * side by side.
 *
 * All pending migrations are one transaction on one connection, under an advisory lock that ends with it: a node that
 * dies in the middle leaves nothing behind. The lock is tried, not waited for, so that no statement timeout cuts the
 * waiting nodes off. It also covers the first creation of the migrator's own table, which would race.
 */
import { Migrator, SqlClient, SqlError } from "@effect/sql"
import { StoreUnavailable } from "@orrery/core/Errors"
import { Effect, Layer, Option, Schedule } from "effect"
import { unavailable } from "./internal/pgErrors.js"
import runs from "./migrations/0001_runs.js"
import runKeys from "./migrations/0002_run_keys.js"
import schedules from "./migrations/0003_schedules.js"
import runOrigin from "./migrations/0004_run_origin.js"
import runIdentities from "./migrations/0005_run_identities.js"
import queueSettings from "./migrations/0006_queue_settings.js"
import runProgress from "./migrations/0007_run_progress.js"
import inbox from "./migrations/0008_inbox.js"
import historyRetention from "./migrations/0009_history_retention.js"
import promisedBackfills from "./migrations/0011_promised_backfills.js"
import startRolls from "./migrations/0012_start_rolls.js"
import * as PgHistory from "./PgHistory.js"

/** In order. Released ones are never edited. */
const migrations = {
  "0001_runs": runs,
  "0002_run_keys": runKeys,
  "0003_schedules": schedules,
  "0004_run_origin": runOrigin,
  "0005_run_identities": runIdentities,
  "0006_queue_settings": queueSettings,
  "0007_run_progress": runProgress,
  "0008_inbox": inbox,
  "0009_history_retention": historyRetention,
  "0011_promised_backfills": promisedBackfills,
  "0012_start_rolls": startRolls
}

/** In the schema `orrery`, like everything else. */
export const table = "orrery_migrations"

/** While another node migrates: look every 100 ms, for 2 minutes. */
const waitForOthers = Schedule.spaced("100 millis").pipe(Schedule.upTo("2 minutes"))

class Busy {
  readonly _tag = "Busy"
}

const migrate = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [lock] = yield* sql<{ readonly free: boolean }>`
    select pg_try_advisory_xact_lock(hashtextextended('orrery.migrations', 0)) as free`
  if (lock?.free !== true) return yield* Effect.fail(new Busy())
  // `if not exists` would ask for the right to create schemas each time.
  const [schema] = yield* sql<{ readonly found: boolean }>`select to_regnamespace('orrery') is not null as found`
  if (schema?.found !== true) yield* sql`create schema orrery`
  // The migrator names its table without a schema, and a user called orrery would find another one first.
  yield* sql`set local search_path = orrery`
  // It looks for the table by a statement that fails without it, which would end this transaction.
  yield* sql.unsafe(`create table if not exists ${table} (
    migration_id integer primary key,
    created_at timestamp with time zone not null default now(),
    name text not null
  )`)
  const applied = yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table })
  // Else that is upkeep, which must not keep a node from starting.
  if (applied.length > 0) yield* PgHistory.makeMissing
})

type Failure = SqlError.SqlError | Migrator.MigrationError

/** Answers when the schema is up to date, whoever did it. Safe to repeat. */
export const run: Effect.Effect<void, StoreUnavailable, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql.withTransaction(migrate)
).pipe(
  // @effect/sql throws a failed migration or commit as a defect; but a lost connection is no bug.
  Effect.catchSomeDefect((defect) => isFailure(defect) ? Option.some(Effect.fail(defect)) : Option.none()),
  Effect.retry({ while: (error) => error._tag === "Busy", schedule: waitForOthers }),
  Effect.mapError((error) =>
    error._tag === "Busy"
      ? new StoreUnavailable({
        operation: "migrate",
        cause: new Error("another node has been migrating for 2 minutes")
      })
      : unavailable("migrate")(rootOf(error))
  ),
  Effect.withSpan("PgMigrations.run")
)

/** Needs `SqlClient`, as `PgPools.layer` provides it. */
export const layer: Layer.Layer<never, StoreUnavailable, SqlClient.SqlClient> = Layer.effectDiscard(run)

const isFailure = (defect: unknown): defect is Failure =>
  defect instanceof SqlError.SqlError || defect instanceof Migrator.MigrationError

const rootOf = (error: Failure): unknown => error._tag === "MigrationError" ? error.cause ?? error : error
