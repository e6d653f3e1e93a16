/** W9 and W14 ask for features that not every system has; a system says so in `supports`. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { drain } from "../loads.js"
import { type Bench, jobsOf, MeasureInvalid } from "../Stage.js"
import type { Feature } from "../System.js"
import type { Case, Measured, Workload } from "../Workload.js"

export const needs = (feature: Feature) => (system: Description): string | undefined =>
  system.supports?.includes(feature) === true ? undefined : "feature not present"

/** So many where many run side by side: with fewer it is mostly the warming up that is measured. One key is one run after another. */
const keyedJobs = (keys: number): number => keys === 1 ? 1_000 : keys === 100 ? 20_000 : 100_000
/** Long enough for two runs of one key to meet, ms. */
const keyedMs = 1

/** W9: a limit of one run at a time per key: drain rate with so many keys, and runs that were together all the same. */
const keyed = (keys: number): Case => ({
  id: `W9-${keys}`,
  title: keys === 0 ? "drain without concurrency keys" : `drain with ${keys.toLocaleString("en")} keys, limit 1`,
  inQuick: false,
  skip: needs("keys"),
  run: (bench: Bench, system: Description) =>
    Effect.gen(function*() {
      const jobs = jobsOf(bench, system, keyedJobs(keys))
      const { perSecond, reports } = yield* drain(bench, system, { jobs, handlerMs: keyedMs, shape: { keys } })
      const violations = reports.reduce((sum, report) => sum + report.violations, 0)
      const details = { jobs, violations }
      return [{ workload: `W9-${keys}`, value: perSecond, unit: "jobs/s", better: "higher", details }] satisfies Array<
        Measured
      >
    })
})

export const w9: Workload = { id: "W9", title: "concurrency keys", cases: [0, 1, 100, 10_000].map(keyed) }

/** HOOK(features): the measurement of a feature is written with the feature. */
const notYet = (id: string, title: string, feature: Feature): Workload => ({
  id,
  title,
  cases: [{
    id,
    title,
    inQuick: false,
    skip: needs(feature),
    run: () => new MeasureInvalid({ reason: `${id} is not written yet` })
  }]
})

export const w14 = notYet("W14", "a chain of 10 steps", "flows")
