/** The database under fault, as the harness talks to it: patiently, since it may be down for a while. */
import { execute } from "@orrery/store-pg/EmbeddedPostgres"
import { monotonicMs } from "./HistoryFile.js"
import { Data, Effect, Redacted, Schedule, type Scope } from "effect"
import pg from "pg"

export type Query = <Row>(text: string, values?: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<Row>>

/** The database did not answer although nothing is done to it any more, or a statement of the harness is wrong. */
export class HarnessFailed
  extends Data.TaggedError("HarnessFailed")<{ readonly doing: string; readonly cause: unknown }>
{
  override get message() {
    return `${this.doing}: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/** Longest stop of the database in a scenario, and then some. */
const patience = "150 seconds"
const queryTimeoutMs = 60_000
const connectionsMax = 3

export const open = (url: Redacted.Redacted<string>): Effect.Effect<Query, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const pool = new pg.Pool({
          connectionString: Redacted.value(url),
          max: connectionsMax,
          query_timeout: queryTimeoutMs
        })
        pool.on("error", () => undefined)
        return pool
      }),
      (pool) => Effect.promise(() => pool.end().catch(() => undefined))
    ),
    (pool) => <Row>(text: string, values: ReadonlyArray<unknown> = []) =>
      Effect.tryPromise(() => pool.query(text, [...values])).pipe(
        Effect.map((result) => result.rows as ReadonlyArray<Row>),
        Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo(patience))),
        Effect.orDie
      )
  )

/** Several statements, once, as they are. */
export const script = (url: Redacted.Redacted<string>, sql: string): Effect.Effect<void, HarnessFailed> =>
  Effect.asVoid(execute(url, sql)).pipe(
    Effect.mapError((cause) => new HarnessFailed({ doing: "setting up the database", cause }))
  )

const samples = 20

/** Clock of the database minus the monotonic clock of this machine, ms: from the quickest of some answers. */
export const clockOffset = (query: Query): Effect.Effect<number> =>
  Effect.gen(function*() {
    let best = { took: Infinity, offset: 0 }
    for (let each = 0; each < samples; each++) {
      const before = monotonicMs()
      const [row] = yield* query<{ now: number }>(
        "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now"
      )
      const took = monotonicMs() - before
      if (took < best.took) best = { took, offset: row!.now - (before + took / 2) }
    }
    return best.offset
  })
