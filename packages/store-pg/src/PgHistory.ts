/**
 * Upkeep of the history: its partitions are made ahead and dropped when their time is over. Any node may do it, or all: the
 * database lets one at a time, and each step is a transaction of its own that waits half a second for its locks at most.
 */
import { SqlClient, type SqlError } from "@effect/sql"
import type { StoreUnavailable } from "@orrery/core/Errors"
import { keptDaysOf, longestOf, type QueueRetention, retentionDefault } from "@orrery/core/Retention"
import { Effect, Layer } from "effect"
import { unavailable } from "./internal/pgErrors.js"

/** Drops of one round: more than a year without nodes leaves behind. */
const stepsMax = 1_000

export interface DroppedPartition {
  readonly name: string
  /** What it took on disk, indexes included. */
  readonly bytes: number
}

/** `ensurePartitions`, in the transaction that is open. */
export const makeMissing: Effect.Effect<number, SqlError.SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ made: number }>`select orrery.ensure_history_partitions(1) as made`
).pipe(Effect.map(([row]) => row!.made))

/**
 * Makes the partitions of today and tomorrow; gives how many were missing. Without it history goes to the default partition, which
 * works, but is moved later, while commits wait.
 */
export const ensurePartitions: Effect.Effect<number, StoreUnavailable, SqlClient.SqlClient> = makeMissing.pipe(
  Effect.mapError(unavailable("ensurePartitions")),
  Effect.withSpan("PgHistory.ensurePartitions")
)

/**
 * Drops the partitions whose time is over, the oldest first. `retention`: what holds for all queues; runs of which the period is not
 * known are kept as long as its longest.
 */
export const dropPartitions = (
  retention: QueueRetention = {}
): Effect.Effect<ReadonlyArray<DroppedPartition>, StoreUnavailable, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const unsorted = longestOf(keptDaysOf(retention)) ?? null
    const dropped: Array<DroppedPartition> = []
    for (let step = 0; step < stepsMax; step++) {
      const [row] = yield* sql<DroppedPartition>`select name, bytes from orrery.drop_history_partition(${unsorted})`
      if (row === undefined) break
      dropped.push({ name: row.name, bytes: Number(row.bytes) })
    }
    return dropped
  }).pipe(Effect.mapError(unavailable("dropPartitions")), Effect.withSpan("PgHistory.dropPartitions"))

/** For those who end runs in transactions of their own, and know of no node: what holds for all queues. The last one said counts. */
export const record = (retention: QueueRetention): Effect.Effect<void, StoreUnavailable, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const value = JSON.stringify({ ...retentionDefault, ...retention })
    return sql`insert into orrery.cluster_settings as s (key, value) values ('retention', ${value}::jsonb)
      on conflict (key) do update set value = excluded.value where s.value <> excluded.value`
  }).pipe(Effect.asVoid, Effect.mapError(unavailable("recordRetention")))

/** Partitions are made a day ahead and kept for days, so missed rounds do no harm. */
const interval = "10 minutes"

const round = (retention: QueueRetention) =>
  Effect.gen(function*() {
    yield* ensurePartitions
    for (const { bytes, name } of yield* dropPartitions(retention)) {
      yield* Effect.annotateLogs(Effect.logInfo("history partition dropped: its retention is over"), { name, bytes })
    }
  })

/** Says what holds for all queues, then does the upkeep now and every 10 minutes. Every node has one, at its own pace. */
export const layerUpkeep = (retention: QueueRetention): Layer.Layer<never, never, SqlClient.SqlClient> =>
  Layer.scopedDiscard(
    Effect.gen(function*() {
      let isRecorded = false
      const recorded = Effect.suspend(() => isRecorded ? Effect.void : record(retention)).pipe(
        Effect.tap(() => {
          isRecorded = true
        })
      )
      // Before any run ends here; if that cannot be, with a later round.
      yield* Effect.ignore(recorded)
      yield* recorded.pipe(
        Effect.zipRight(round(retention)),
        // A reader that holds a partition for long, or a database that does not answer: the next round does it.
        Effect.catchAll((error) => Effect.logWarning(`upkeep of the history was put off: ${error.message}`)),
        Effect.annotateLogs({ module: "PgHistory" }),
        Effect.zipRight(Effect.sleep(interval)),
        Effect.forever,
        Effect.forkScoped
      )
    })
  )
