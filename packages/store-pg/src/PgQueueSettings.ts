/**
 * Settings of queues in PostgreSQL: one row each, written where the revision before is still the last. Every statement goes by
 * the primary key, but for the list, which looks through the partitions: there are as many as queues.
 */
import type { StoreUnavailable } from "@orrery/core/Errors"
import type { QueueRecord } from "@orrery/core/QueueSettings"
import { QueueSettingsStore, queuesLimitMax } from "@orrery/core/QueueSettingsStore"
import { Effect, Layer } from "effect"
import { unavailable } from "./internal/pgErrors.js"
import { recordOf, settingsColumns, type SettingsRow } from "./internal/settingsRows.js"
import { PgPools } from "./PgPools.js"

const find = {
  name: "orrery_settings_find",
  text: `select ${settingsColumns()} from orrery.queue_settings s where namespace = $1 and queue = $2`
}
/** Of two that write the same revision the second meets the first one's row: it has a key, or the revision, of its own no more. */
const save = {
  name: "orrery_settings_save",
  text: `insert into orrery.queue_settings as s (namespace, queue, revision, changed_at, changed_by, settings)
    select $1, $2, $3::bigint, floor(extract(epoch from clock_timestamp()) * 1000), $4, $5
    where $3::bigint = 1 or exists (
      select from orrery.queue_settings where namespace = $1 and queue = $2 and revision = $3::bigint - 1
    )
    on conflict (namespace, queue) do update
      set revision = excluded.revision, changed_at = excluded.changed_at, changed_by = excluded.changed_by,
        settings = excluded.settings
      where s.revision = excluded.revision - 1
    returning ${settingsColumns()}`
}
const list = {
  name: "orrery_settings_list",
  text: `select ${settingsColumns("q")} from (
      select namespace collate "C" as namespace, queue collate "C" as queue from orrery.queue_settings
      union select namespace, queue from orrery.partitions
    ) q left join orrery.queue_settings s on s.namespace = q.namespace and s.queue = q.queue
    where q.namespace || '|' || q.queue > $1 and ($2::text is null or q.namespace = $2)
    order by q.namespace || '|' || q.queue limit $3`
}

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools

  const query = (
    operation: string,
    statement: { readonly name: string; readonly text: string },
    values: ReadonlyArray<unknown>
  ): Effect.Effect<ReadonlyArray<QueueRecord>, StoreUnavailable> =>
    Effect.tryPromise({
      try: () => read.query<SettingsRow>({ ...statement, values: [...values] }),
      catch: unavailable(operation)
    }).pipe(
      Effect.map(({ rows }) => rows.map(recordOf)),
      Effect.withSpan(`PgQueueSettings.${operation}`)
    )

  /** Partitions of the history for periods that were not in use before. */
  const room = Effect.tryPromise(() => read.query("select orrery.ensure_history_partitions(1)"))

  return QueueSettingsStore.of({
    find: ({ namespace, queue }) => Effect.map(query("findSettings", find, [namespace, queue]), ([found]) => found),
    list: ({ after, limit, namespace }) =>
      query("listSettings", list, [after ?? "", namespace ?? null, Math.min(limit, queuesLimitMax)]),
    save: ({ changedBy, namespace, queue, revision, settings }) =>
      query("saveSettings", save, [namespace, queue, revision, changedBy ?? "", JSON.stringify(settings)]).pipe(
        // Before its owners hear of it; if that cannot be now, it is the upkeep's.
        Effect.tap(() =>
          settings.retention === undefined && settings.declared?.retention === undefined
            ? Effect.void
            : Effect.ignore(room)
        ),
        Effect.map(([saved]) => saved)
      )
  })
})

export const layer: Layer.Layer<QueueSettingsStore, never, PgPools> = Layer.effect(QueueSettingsStore, make)
