/** The little that commands ask the database for by themselves. */
import * as PgPools from "@orrery/store-pg/PgPools"
import { Data, Effect, type Redacted } from "effect"

/** Addresses of nodes that were killed long ago are of no use; the newest are tried first. */
const addressesMax = 16

export class DatabaseUnavailable extends Data.TaggedError("DatabaseUnavailable")<{
  readonly operation: string
  readonly cause: unknown
}> {
  readonly exitCode = 69
  override get message() {
    const reason = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `the database of ORRERY_DATABASE_URL cannot be used (${this.operation}): ${reason}`
  }
}

/** One statement on a connection of its own. */
export const query = <Row>(
  url: Redacted.Redacted<string>,
  operation: string,
  text: string,
  values: ReadonlyArray<unknown> = []
): Effect.Effect<ReadonlyArray<Row>, DatabaseUnavailable> =>
  PgPools.makePool({ role: "cli", url, max: 1, statementTimeoutMs: 30_000, queryTimeoutMs: 30_000 }).pipe(
    Effect.flatMap((pool) => Effect.tryPromise(() => pool.query(text, [...values]))),
    Effect.map((result) => result.rows as ReadonlyArray<Row>),
    Effect.mapError((failure) => new DatabaseUnavailable({ operation, cause: failure.cause ?? failure })),
    Effect.scoped
  )

/** Where nodes entered themselves as listening, newest first. Some may be dead. */
export const dataAddresses = (
  url: Redacted.Redacted<string>
): Effect.Effect<ReadonlyArray<string>, DatabaseUnavailable> =>
  Effect.map(
    query<{ readonly data_address: string }>(
      url,
      "finding nodes",
      `select data_address from orrery.nodes order by started_at desc limit ${addressesMax}`
    ),
    (rows) => rows.map((row) => row.data_address)
  )
