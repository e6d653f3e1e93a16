/**
 * W11: a session that is idle in a transaction holds the horizon of vacuum: dead rows stay. A steady rate with one, and
 * without.
 */
import { Effect, Option, Redacted, type Scope } from "effect"
import pg from "pg"
import * as BenchPostgres from "../BenchPostgres.js"
import type { Description } from "../Calls.js"
import { openPair, type Steady, steady } from "../loads.js"
import { type Bench, type MeasureFailed, MeasureInvalid, type Stage } from "../Stage.js"
import type { Measured, Workload } from "../Workload.js"

const perSecond = 1_000
const forMsWhole = 10 * 60_000
const forMsQuick = 20_000
/** Undisturbed, nothing grows but the history: what three minutes show, ten do. */
const plainMsMax = 3 * 60_000
const overMs = 250

interface Run {
  readonly forMs: number
  readonly steady: Steady
  readonly deadRows: number
}

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const forMs = Math.round((bench.sizes.quick ? forMsQuick : forMsWhole) * Math.min(1, bench.sizes.scale))
    const plain = yield* runOnce(bench, system, { forMs: Math.min(forMs, plainMsMax), isHeld: false })
    const held = yield* runOnce(bench, system, { forMs, isHeld: true })
    const rateOf = ({ forMs, steady }: Run) => (steady.jobs - steady.late) / forMs * 1_000
    const details = {
      secondsPlain: plain.forMs / 1_000,
      secondsHeld: held.forMs / 1_000,
      withinPlain: rateOf(plain),
      withinHeld: rateOf(held),
      p99Plain: plain.steady.report.start.p99,
      p99Held: held.steady.report.start.p99,
      deadRowsPlain: plain.deadRows,
      deadRowsHeld: held.deadRows,
      p50Plain: plain.steady.report.start.p50,
      p50Held: held.steady.report.start.p50
    }
    return [
      { workload: "W11", value: held.steady.report.start.p99, unit: "ms", better: "lower", details },
      { workload: "W11-rate", value: rateOf(held), unit: "jobs/s", better: "higher", details }
    ] satisfies Array<Measured>
  })

const runOnce = (
  bench: Bench,
  system: Description,
  { forMs, isHeld }: { readonly forMs: number; readonly isHeld: boolean }
): Effect.Effect<Run, MeasureFailed> =>
  Effect.scoped(Effect.gen(function*() {
    const pair = yield* openPair(bench, system)
    if (isHeld) yield* holdHorizon(pair.stage)
    const found = yield* steady(pair, { perSecond, forMs, overMs })
    return { forMs, steady: found, deadRows: yield* deadRows(pair.stage) }
  }))

/** Until the scope closes, nothing that is deleted from now on can be cleaned up. */
const holdHorizon = (stage: Stage): Effect.Effect<void, MeasureInvalid, Scope.Scope> =>
  Effect.gen(function*() {
    if (Option.isNone(stage.database)) return yield* new MeasureInvalid({ reason: "not on PostgreSQL" })
    const { url } = stage.database.value
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const made = new pg.Client({
          connectionString: Redacted.value(url),
          application_name: "bench-idle-in-transaction"
        })
        made.on("error", () => undefined)
        return made
      }),
      (made) => Effect.promise(() => made.end().catch(() => undefined))
    )
    yield* Effect.tryPromise({
      try: async () => {
        await client.connect()
        await client.query("begin isolation level repeatable read")
        await client.query("select count(*) from pg_class")
      },
      catch: (cause) => new MeasureInvalid({ reason: `the idle session could not be opened: ${String(cause)}` })
    })
  })

const deadRows = (stage: Stage): Effect.Effect<number, BenchPostgres.PostgresFailed> =>
  Option.match(stage.database, {
    onNone: () => Effect.succeed(0),
    onSome: ({ url }) =>
      Effect.map(
        BenchPostgres.query(url, "select coalesce(sum(n_dead_tup), 0)::float8 as n from pg_stat_user_tables"),
        ([row]) => Number(row?.["n"])
      )
  })

export const w11: Workload = {
  id: "W11",
  title: "held horizon",
  cases: [{
    id: "W11",
    title: "p99 start at 1,000/s while a session is idle in a transaction",
    inQuick: true,
    // Two open loops of up to ten minutes, and their ends.
    withinS: 20 * 60,
    roundsMax: 1,
    skip: (system) => system.needs === "postgres" ? undefined : "not on PostgreSQL",
    run: measure
  }]
}
