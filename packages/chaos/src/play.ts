/** One scenario, from an empty database to its result. */
import { Cause, type Duration, Effect, type Scope } from "effect"
import { mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { conclude } from "./conclude.js"
import { NeverHappened } from "./patience.js"
import type { Postgres } from "./Postgres.js"
import * as Result from "./Result.js"
import type { Event, Gaps, Scenario, Scene, Violation } from "./Scenario.js"
import * as Stage from "./Stage.js"

export interface PlayOptions {
  readonly seed: number
  /** Events; default: as the scenario says. */
  readonly times?: number
  /** As in `Stage`; only `play` looks at it. */
  readonly load?: number
  readonly isQuick: boolean
  /** Before the first fault on a stage: caches are warm, connections made, every queue has an owner. Default 3 s. */
  readonly warmUp?: Duration.DurationInput
  /** How long the load is looked at before an event, to know what is usual on this machine just now. Default 2 s. */
  readonly usualFor?: Duration.DurationInput
  /** Between two events: what was killed is back, shards have settled. Default 3 s. */
  readonly betweenEvents?: Duration.DurationInput
  /** Told as it happens. */
  readonly onProgress: (line: string) => void
}

const warmUpDefault: Duration.DurationInput = "3 seconds"
/** Hand-overs that come after the first answers count too. */
const afterEvent = "500 millis"
const usualForDefault: Duration.DurationInput = "2 seconds"
const betweenEventsDefault: Duration.DurationInput = "3 seconds"

/** What a scenario did, when it is over. */
export interface Played {
  readonly scenario: Scenario
  readonly scene: Scene
  readonly recoveries: ReadonlyArray<number>
  readonly gaps: ReadonlyArray<Gaps>
  readonly violations: Array<Violation>
  readonly notes: Readonly<Record<string, number | string>>
  readonly events: number
}

/** Plays it on a stage that is there. */
export const playOn = (
  stage: Stage.Stage,
  scenario: Scenario,
  options: PlayOptions
): Effect.Effect<Played, never, Scope.Scope> =>
  Effect.gen(function*() {
    const recoveries: Array<number> = []
    const gaps: Array<Gaps> = []
    const violations: Array<Violation> = []
    const notes: Record<string, number | string> = {}
    let events = 0
    const recovered = (ms: number): void => void recoveries.push(ms)
    const fault: Scene["fault"] = (what) =>
      Effect.sync(() => {
        events += 1
        stage.history.write({ _tag: "fault", what })
        options.onProgress(`${scenario.name}: ${what}`)
      })
    const usual = Effect.suspend(() => {
      stage.load.longestGap()
      return Effect.map(Effect.sleep(options.usualFor ?? usualForDefault), () => stage.load.longestGap())
    })
    const event = (what: string, { inject, of, repair }: Event) =>
      Effect.gen(function*() {
        yield* stage.load.allServed
        const before = of === undefined ? 0 : yield* usual
        const its = of === undefined ? undefined : yield* of
        yield* fault(what)
        stage.load.longestGap()
        yield* inject
        if (repair !== undefined) {
          const before = performance.now()
          yield* repair
          // Who waited for an answer all the time has waited at least for the repair: that is not recovery.
          stage.load.longestGap()
          options.onProgress(`${scenario.name}: repaired in ${Math.round(performance.now() - before)} ms`)
        }
        const began = performance.now()
        yield* stage.load.allServed
        const served = performance.now() - began
        yield* Effect.sleep(afterEvent)
        const found = gapsOf(stage.load.gaps(), before, its)
        if (its !== undefined) gaps.push(found)
        const ms = repair === undefined ? found.its : served
        if (ms !== null) recovered(ms)
        options.onProgress(
          `${scenario.name}: ${
            ms === null ? "it had no queue under load" : `every queue served again after ${Math.round(ms)} ms`
          }${toldOf(found, its)}`
        )
        yield* Effect.sleep(options.betweenEvents ?? betweenEventsDefault)
      }).pipe(Effect.orDie)
    const scene: Scene = {
      ...stage,
      times: options.times ?? (options.isQuick ? scenario.quickTimes : scenario.times),
      isQuick: options.isQuick,
      fault,
      healed: (what) => Effect.sync(() => stage.history.write({ _tag: "healed", what })),
      event,
      recovered,
      violate: (violation) => void violations.push(violation),
      note: (name, value) => void (notes[name] = value)
    }
    const surprise = (cause: Cause.Cause<unknown>) =>
      Effect.sync(() => {
        const failure = Cause.squash(cause)
        const what = failure instanceof NeverHappened ? failure.message : Cause.pretty(cause)
        violations.push({ checker: failure instanceof NeverHappened ? "liveness" : "scenario", what })
        options.onProgress(`${scenario.name}: ${what}`)
      })
    yield* stage.load.allServed.pipe(
      Effect.zipRight(Effect.sleep(options.warmUp ?? warmUpDefault)),
      Effect.zipRight(scenario.play(scene)),
      Effect.scoped,
      Effect.catchAllCause((cause) => Cause.isInterruptedOnly(cause) ? Effect.interrupt : surprise(cause)),
      Effect.ensuring(stage.links.heal)
    )
    return {
      scenario,
      scene,
      recoveries,
      gaps,
      violations,
      notes,
      get events() {
        return events
      }
    }
  })

const longest = (gaps: ReadonlyArray<number>): number | null => gaps.length === 0 ? null : Math.max(...gaps)

/** `its` left out: it is about all of them. One that is about none shows in what the others suffer. */
const gapsOf = (gaps: ReadonlyMap<string, number>, before: number, its: ReadonlySet<string> | undefined): Gaps => {
  const of = (isIts: boolean) =>
    longest([...gaps].flatMap(([queue, gap]) => (its === undefined || its.has(queue)) === isIts ? [gap] : []))
  return { its: of(true), others: of(false), before }
}

const toldOf = ({ before, others }: Gaps, its: ReadonlySet<string> | undefined): string =>
  its === undefined
    ? ""
    : `, its ${its.size}; the others waited ${Math.round(others ?? 0)} ms, and ${Math.round(before)} ms before it`

/** Everything of its own: database, processes, folder. The folder is kept when a promise was broken, or on wish. */
export const play = (
  scenario: Scenario,
  options: PlayOptions & { readonly postgres: Postgres; readonly folder: string; readonly keep: boolean }
): Effect.Effect<Result.Result, never> =>
  Effect.gen(function*() {
    const { seed } = options
    if (scenario.skipped !== undefined) return Result.skipped(scenario.name, seed, scenario.skipped)
    const began = performance.now()
    const folder = join(options.folder, `${scenario.name}-${seed}`)
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const stage = yield* Stage.start({
      ...scenario.setting,
      postgres: options.postgres,
      seed,
      name: `${scenario.name.replaceAll("-", "_")}_${process.pid}`,
      folder,
      load: options.load ?? 1
    })
    const played = yield* playOn(stage, scenario, options)
    const conclusion = yield* conclude(stage)
    yield* scenario.inspect?.(played.scene) ?? Effect.void
    const result = Result.make({
      scenario: scenario.name,
      seed,
      runs: conclusion.runs,
      recoveries: played.recoveries,
      gaps: played.gaps,
      violations: [...played.violations, ...conclusion.violations],
      durationMs: performance.now() - began,
      events: played.events,
      notes: {
        ...played.notes,
        takeovers: conclusion.takeovers,
        ticks: conclusion.ticks,
        quiesceMs: Math.round(conclusion.quiesceMs),
        ...Object.fromEntries([...stage.load.failures].map(([name, count]) => [`resent after ${name}`, count]))
      }
    })
    if (Result.isGood(result) && !options.keep) rmSync(folder, { recursive: true, force: true })
    else options.onProgress(`${scenario.name}: histories and logs are in ${folder}`)
    return result
  }).pipe(
    Effect.scoped,
    Effect.catchAllCause((cause) =>
      Cause.isInterruptedOnly(cause)
        ? Effect.interrupt
        : Effect.succeed(Result.make({
          scenario: scenario.name,
          seed: options.seed,
          runs: 0,
          recoveries: [],
          gaps: [],
          violations: [{ checker: "scenario", what: Cause.pretty(cause) }],
          durationMs: 0,
          events: 0,
          notes: {}
        }))
    )
  )
