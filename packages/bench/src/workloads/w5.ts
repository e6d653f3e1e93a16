/** W5: the highest rate that is kept up with: p99 from intended submission to start below 250 ms. */
import { Effect, Exit, Scope } from "effect"
import type { Description } from "../Calls.js"
import { climb } from "../ladder.js"
import { openPair, type Pair, type Steady, steady } from "../loads.js"
import type { Bench, MeasureFailed } from "../Stage.js"
import type { Measured, Workload } from "../Workload.js"

export const rates: ReadonlyArray<number> = [
  25,
  50,
  100,
  250,
  500,
  1_000,
  2_000,
  4_000,
  6_000,
  8_000,
  10_000,
  12_000,
  15_000,
  20_000
]
const overMs = 250
/** Part of the jobs that may be late: p99. */
const lateShare = 0.01
const attempts = 2
const forMsWhole = 12_000
const forMsQuick = 6_000

/** Where the climb begins: what was measured before. It goes down from there when that is too high. */
const expected: Readonly<Record<string, number>> = {
  orrery: 4_000,
  bullmq: 4_000,
  "effect-entity": 100,
  "effect-workflow": 50,
  dbos: 100
}
const expectedDefault = 250

/** What the system was left with after a step that failed must not burden the next: it gets a new one. */
const attempt = (
  held: { pair?: readonly [Pair, Scope.CloseableScope] },
  bench: Bench,
  system: Description,
  perSecond: number
): Effect.Effect<Steady, MeasureFailed> =>
  Effect.gen(function*() {
    if (held.pair === undefined) {
      const scope = yield* Scope.make()
      const pair = yield* Scope.extend(openPair(bench, system), scope).pipe(
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
      held.pair = [pair, scope]
    }
    const [pair, scope] = held.pair
    const forMs = (bench.sizes.quick ? forMsQuick : forMsWhole) * Math.min(1, bench.sizes.scale)
    const step = yield* steady(pair, { perSecond, forMs, overMs })
    if (!passes(step)) {
      delete held.pair
      yield* Scope.close(scope, Exit.void)
    }
    return step
  })

export const passes = ({ jobs, late }: Pick<Steady, "jobs" | "late">): boolean => late <= jobs * lateShare

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const held: { pair?: readonly [Pair, Scope.CloseableScope] } = {}
    yield* Effect.addFinalizer((exit) => held.pair === undefined ? Effect.void : Scope.close(held.pair[1], exit))
    const steps: Array<string> = []
    const tried = (perSecond: number) =>
      Effect.map(attempt(held, bench, system, perSecond), (step) => {
        steps.push(`${perSecond}: p99 ${Math.round(step.report.start.p99)} ms, ${step.late} of ${step.jobs} late`)
        return passes(step)
      })
    const from = rates.indexOf(expected[system.id.split(":")[0]!] ?? expectedDefault)
    const highest = yield* climb({ rates, from, attempts }, tried)
    const details = { steps: steps.join("; ") }
    return [{ workload: "W5", value: highest, unit: "jobs/s", better: "higher", details }] satisfies Array<Measured>
  })

export const w5: Workload = {
  id: "W5",
  title: "sustained rate",
  cases: [{ id: "W5", title: "highest rate with p99 start under 250 ms", inQuick: true, withinS: 900, run: measure }]
}
