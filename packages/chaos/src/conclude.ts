/** After the last fault: everything is healed, the load stops, what is left runs to its end, and the checkers look at it all. */
import { RunState } from "@orrery/core/RunState"
import { checkAll } from "@orrery/testing/history/checkers"
import type { HistoryEvent } from "@orrery/testing/history/HistoryEvent"
import { Duration, Effect, Option } from "effect"
import * as Audit from "./Audit.js"
import * as Beats from "./Beats.js"
import * as HistoryFile from "./HistoryFile.js"
import { eventually } from "./patience.js"
import type { Violation } from "./Scenario.js"
import type { Stage } from "./Stage.js"

/** All that is acknowledged has ended this long after the last fault, or the promise of liveness is broken. */
export const quiesceWithin = Duration.seconds(60)
/** Handlers' clock: one machine, measured to less than a millisecond; its adjustments are slow. */
const toleranceMs = 5
const lookEvery = "200 millis"

export interface Conclusion {
  /** Acknowledged. */
  readonly runs: number
  readonly history: ReadonlyArray<HistoryEvent>
  readonly violations: ReadonlyArray<Violation>
  readonly takeovers: number
  /** Instants at which schedules had to fire. */
  readonly ticks: number
  /** From the last fault until nothing waited any more, ms. */
  readonly quiesceMs: number
}

export const conclude = (stage: Stage): Effect.Effect<Conclusion> =>
  Effect.gen(function*() {
    yield* stage.links.heal
    stage.history.write({ _tag: "healed", what: "everything" })
    const began = performance.now()
    yield* stage.load.stop
    yield* Beats.stop(stage.client)
    const isIdle = eventually(
      "all runs have ended",
      Effect.zipRight(
        Effect.sleep(lookEvery),
        stage.query<{ left: number }>("select count(*)::int as left from orrery.runs")
      ),
      ([row]) => row!.left === 0
    )
    // What has not ended by then is told by the checker of liveness, run by run.
    yield* Effect.timeoutOption(isIdle, quiesceWithin).pipe(Effect.catchAllDefect(() => Effect.succeed(Option.none())))
    const quiesceMs = performance.now() - began
    const told = HistoryFile.readAll(stage.folder)
    const audited = yield* Audit.read(stage.query, stage.clockOffset)
    const finals = yield* readFinals(stage)
    const history = merged(told, audited.committed).concat(finals, yield* Beats.read(stage.query))
    const zombies = audited.zombies.map((what): Violation => ({ checker: "zombie", what }))
    return {
      runs: new Set(told.flatMap((event) => event._tag === "acknowledged" ? [event.run] : [])).size,
      history,
      violations: [...checkAll(history, { toleranceMs }), ...zombies],
      takeovers: audited.takeovers,
      ticks: history.reduce((sum, event) => event._tag === "targets" ? sum + event.nominals.length : sum, 0),
      quiesceMs
    }
  })

interface FinalRow {
  readonly run: string
  readonly state: number
  readonly rows: number
}

const readFinals = (stage: Stage): Effect.Effect<Array<HistoryEvent>> =>
  stage.query<FinalRow>(
    `select id::text as run, max(state)::int as state, count(*)::int as rows
     from (select id, state from orrery.runs union all select id, state from orrery.run_history) each group by id`
  ).pipe(Effect.map((rows) => {
    const at = HistoryFile.monotonicMs()
    return rows.map(({ rows, run, state }): HistoryEvent => ({
      _tag: "final",
      at,
      by: "postgres",
      run,
      state: RunState.literals[state]!,
      rows
    }))
  }))

/** Both in order of time; commits keep their own order among themselves. */
const merged = (told: ReadonlyArray<HistoryEvent>, committed: ReadonlyArray<HistoryEvent>): Array<HistoryEvent> => {
  const all: Array<HistoryEvent> = []
  let next = 0
  for (const event of told) {
    while (next < committed.length && committed[next]!.at <= event.at) all.push(committed[next++]!)
    all.push(event)
  }
  while (next < committed.length) all.push(committed[next++]!)
  return all
}
