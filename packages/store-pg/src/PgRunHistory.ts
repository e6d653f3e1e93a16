/** Final runs are deleted by their ids, each found by the index of its day. */
import { RunHistory } from "@orrery/core/RunHistory"
import { Effect, Layer, Schedule } from "effect"
import { unavailable } from "./internal/pgErrors.js"
import { PgPools } from "./PgPools.js"

const deleteText = `with gone as (
    delete from orrery.run_history where id = any($1::uuid[]) returning id
  ), told as (
    delete from orrery.run_progress where run_id in (select id from gone)
  ) select count(*)::integer as deleted from gone`

/** What is deleted twice is gone once; only its count is lost with the answer. */
const again = Schedule.exponential("50 millis").pipe(Schedule.intersect(Schedule.recurs(3)))

export const make = Effect.map(PgPools, ({ read }) =>
  RunHistory.of({
    delete: (ids) =>
      Effect.tryPromise({
        try: () => read.query<{ deleted: number }>({ name: "orrery_delete_final", text: deleteText, values: [ids] }),
        catch: unavailable("delete")
      }).pipe(
        Effect.retry(again),
        Effect.map(({ rows: [row] }) => row!.deleted),
        Effect.withSpan("PgRunHistory.delete")
      )
  }))

export const layer: Layer.Layer<RunHistory, never, PgPools> = Layer.effect(RunHistory, make)
