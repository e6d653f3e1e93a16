/**
 * Schedules of every second, as long as a stage is played on. In the end each second must have its tick, and each tick its run,
 * whatever was done to those who own them.
 */
import * as RecurringSchedule from "@orrery/core/schedule/RecurringSchedule"
import { Schedules } from "@orrery/core/schedule/Schedules"
import type { HistoryEvent } from "@orrery/testing/history/HistoryEvent"
import { type Context, Effect } from "effect"
import { beats } from "./chaosTasks.js"
import type * as Database from "./Database.js"
import * as HistoryFile from "./HistoryFile.js"
import { eventually } from "./patience.js"

const everyMs = 1_000

const schedules = beats.map((task) =>
  RecurringSchedule.make(task.name, {
    version: 1,
    task,
    payload: {},
    every: everyMs,
    policy: { misfire: "fireAll", overlap: "allowAll" }
  })
)

/** Asked until it is done: the cluster may be starting, or recovering. */
const insist = (
  client: Context.Context<Schedules>,
  what: string,
  ask: Effect.Effect<unknown, unknown, Schedules>
): Effect.Effect<void> =>
  Effect.asVoid(eventually(what, Effect.isSuccess(Effect.provide(ask, client)), (isDone) => isDone))

export const start = (client: Context.Context<Schedules>): Effect.Effect<void> =>
  insist(client, "the schedules are declared", RecurringSchedule.reconcile(schedules))

interface TickRow {
  readonly first: number
  readonly last: number
  readonly count: number
  readonly outcome: "enqueued" | "skipped" | "missed"
  readonly run: string | null
}

/** Ends them, and tells when each had to fire and what the store says it did. All runs have to end after that, not before. */
export const stop = (client: Context.Context<Schedules>): Effect.Effect<void> =>
  Effect.forEach(schedules, ({ id }) => {
    const pause = Effect.flatMap(Schedules, ({ call }) => call({ _tag: "pause", id, by: "chaos", why: "the end" }))
    return insist(client, `schedule ${id} is paused`, pause)
  }, { discard: true })

/** `stop` comes before. */
export const read = (query: Database.Query): Effect.Effect<ReadonlyArray<HistoryEvent>> =>
  Effect.map(
    Effect.forEach(schedules, ({ id, name }) =>
      Effect.gen(function*() {
        const [row] = yield* query<{ from: number; until: number }>(
          `select created_at as from, (state::json -> 'paused' ->> 'at')::float8 as until from orrery.schedules where id = $1`,
          [id]
        )
        const ticks = yield* query<TickRow>(
          `select first, last, count, outcome, run_id::text as run from orrery.schedule_ticks where schedule_id = $1`,
          [id]
        )
        const runs = yield* query<{ id: string }>(
          `select id::text from orrery.runs where task = $1 union select id::text from orrery.run_history where task = $1`,
          [name]
        )
        const at = HistoryFile.monotonicMs()
        const common = { at, by: "postgres", schedule: id } as const
        const first = Math.floor(row!.from / everyMs) + 1
        const last = Math.floor(row!.until / everyMs)
        const nominals = Array.from({ length: last - first + 1 }, (_, n) => (first + n) * everyMs)
        return [
          { _tag: "targets", ...common, nominals, runs: runs.map((run) => run.id) },
          ...ticks.map((tick) => ({ _tag: "ticked", ...common, ...tick }) as const)
        ] satisfies ReadonlyArray<HistoryEvent>
      })),
    (all) => all.flat()
  )
