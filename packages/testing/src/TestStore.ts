/** The PostgreSQL stores on a fresh database with the schema. */
import * as PgJournal from "@orrery/store-pg/PgJournal"
import * as PgPartitionStore from "@orrery/store-pg/PgPartitionStore"
import * as PgPools from "@orrery/store-pg/PgPools"
import * as PgProgressStore from "@orrery/store-pg/PgProgressStore"
import * as PgQueueSettings from "@orrery/store-pg/PgQueueSettings"
import * as PgRunHistory from "@orrery/store-pg/PgRunHistory"
import * as PgRunReader from "@orrery/store-pg/PgRunReader"
import { Context, Effect, Layer, type Redacted, type Scope } from "effect"
import type pg from "pg"
import * as TestPostgres from "./TestPostgres.js"

/** Where the stores are, for a test's own connections. */
export class TestDatabase extends Context.Tag("@orrery/testing/TestDatabase")<TestDatabase, {
  readonly url: Redacted.Redacted<string>
}>() {}

export const stores = (options?: PgJournal.JournalOptions) =>
  Layer.mergeAll(
    PgJournal.layer(options),
    PgPartitionStore.layer,
    PgProgressStore.layer,
    PgQueueSettings.layer,
    PgRunHistory.layer,
    PgRunReader.layer
  )

export const layerWith = (options: PgJournal.JournalOptions) =>
  Layer.unwrapScoped(Effect.gen(function*() {
    const url = yield* TestPostgres.migratedDatabase
    return stores(options).pipe(
      Layer.provideMerge(PgPools.layer({ url })),
      Layer.merge(Layer.succeed(TestDatabase, { url }))
    )
  }))

export const layer = layerWith({})

/** A connection beside those of the stores, for looking and for disturbing. */
export const ownClient: Effect.Effect<pg.PoolClient, never, TestDatabase | Scope.Scope> = Effect.gen(function*() {
  const { url } = yield* TestDatabase
  const pool = yield* PgPools.makePool({
    role: "test",
    url,
    max: 1,
    statementTimeoutMs: 60_000,
    queryTimeoutMs: 60_000
  })
  const client = yield* Effect.acquireRelease(
    Effect.promise(() => pool.connect()),
    (connected) => Effect.sync(() => connected.release(true))
  )
  // The database may be dropped first.
  client.on("error", () => undefined)
  return client
}).pipe(Effect.orDie)

export const query = <Row extends object = Record<string, unknown>>(
  client: pg.PoolClient,
  text: string,
  values: ReadonlyArray<unknown> = []
): Effect.Effect<Array<Row>> =>
  Effect.promise(() => client.query<Row>(text, [...values])).pipe(Effect.map((result) => result.rows))
