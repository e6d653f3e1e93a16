/** Counts for the reconciler: one statement, each line no further than asked, by the indexes of the lines. */
import { RunTally } from "@orrery/core/RunTally"
import { Effect, Layer } from "effect"
import { unavailable } from "./internal/pgErrors.js"
import { isInLine, isRunning, isTimer, line, linesOf } from "./internal/places.js"
import { PgPools } from "./PgPools.js"

const text = `with recursive ${linesOf("$1")},
  asked as (
    select l.line, coalesce(e.key, 'Infinity') as key, coalesce(e.seq, ${Number.MAX_SAFE_INTEGER}) as seq,
      coalesce(e.wanted, 0) + 1 as most
    from lines l left join unnest($2::text[], $3::float8[], $4::bigint[], $5::bigint[]) e(line, key, seq, wanted)
      on e.line = l.line
    where l.line is not null
  )
  select
    (select count(*)::integer from (
      select from orrery.runs where partition_id = $1 and ${isRunning} limit $6
    ) r) as running,
    (select count(*)::integer from (
      select from orrery.runs where partition_id = $1 and ${isTimer()}
        and (scheduled_at, seq) <= ($7::float8, $8::bigint) limit $9
    ) t) as timers,
    coalesce((select json_object_agg(l.line, (
      select count(*) from (
        select from orrery.runs r where r.partition_id = $1 and ${isInLine("r.")} and ${line("r.")} = l.line
          and (r.order_key, r.seq) <= (l.key, l.seq) order by r.order_key, r.seq limit l.most
      ) c
    )) from asked l), '{}') as ready`

interface Row {
  readonly running: number
  readonly timers: number
  readonly ready: Readonly<Record<string, number>>
}

/** An edge may lie at either infinity, which `bigint` does not know. */
const seqOf = (seq: number): number => Math.max(Math.min(seq, Number.MAX_SAFE_INTEGER), Number.MIN_SAFE_INTEGER)

export const make = Effect.gen(function*() {
  const { read } = yield* PgPools
  return RunTally.of({
    count: (partitionId, { ready, running, timers }) =>
      Effect.tryPromise({
        try: () => {
          const lines = [...ready]
          const values = [
            partitionId,
            lines.map(([name]) => name),
            lines.map(([, { key }]) => key),
            lines.map(([, { seq }]) => seqOf(seq)),
            lines.map(([, { count }]) => count),
            running + 1,
            timers.key,
            seqOf(timers.seq),
            timers.count + 1
          ]
          return read.query<Row>({ name: "orrery_tally", text, values })
        },
        catch: unavailable("count")
      }).pipe(
        Effect.map(({ rows: [row] }) => ({
          running: row!.running,
          timers: row!.timers,
          ready: new Map(Object.entries(row!.ready))
        })),
        Effect.withSpan("PgRunTally.count")
      )
  })
})

export const layer: Layer.Layer<RunTally, never, PgPools> = Layer.effect(RunTally, make)
