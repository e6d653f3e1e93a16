/** W2: how fast preloaded jobs that do nothing are completed: one and two worker processes, history kept and not. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import * as Cost from "../Cost.js"
import { drain } from "../loads.js"
import { type Bench, jobsOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"

const jobsWhole = 100_000
const jobsQuick = 50_000

const caseOf = (options: {
  readonly id: string
  readonly title: string
  readonly workers: number
  readonly keepHistory: boolean
  readonly inQuick: boolean
}): Case => ({
  id: options.id,
  title: options.title,
  inQuick: options.inQuick,
  sameAs: ({ keepsHistory }) =>
    options.keepHistory && keepsHistory !== "choice" ? options.id.replace("-history", "") : undefined,
  run: (bench, system) => measure(bench, system, options)
})

const measure = (
  bench: Bench,
  system: Description,
  { id, keepHistory, workers }: { readonly id: string; readonly workers: number; readonly keepHistory: boolean }
) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, bench.sizes.quick ? jobsQuick : jobsWhole)
    const drained = yield* drain(bench, system, { jobs, workers, keepHistory })
    const details = {
      jobs,
      startedPerSecond: Math.round(drained.startedPerSecond),
      repeated: drained.reports.reduce((sum, { repeated }) => sum + repeated, 0),
      history: system.keepsHistory === "choice" ? keepHistory : system.keepsHistory === "always",
      ...Cost.details(drained.cost)
    }
    return [{ workload: id, value: drained.perSecond, unit: "jobs/s", better: "higher", details }] satisfies Array<
      Measured
    >
  })

/** What a system cannot choose is the same in both: then it is measured as it is, and stands in both tables. */
export const w2: Workload = {
  id: "W2",
  title: "drain",
  cases: [
    caseOf({ id: "W2", title: "drain, one worker, history not kept", workers: 1, keepHistory: false, inQuick: true }),
    caseOf({
      id: "W2-history",
      title: "drain, one worker, history kept",
      workers: 1,
      keepHistory: true,
      inQuick: false
    }),
    caseOf({
      id: "W2-two",
      title: "drain, two workers, history not kept",
      workers: 2,
      keepHistory: false,
      inQuick: false
    }),
    caseOf({
      id: "W2-two-history",
      title: "drain, two workers, history kept",
      workers: 2,
      keepHistory: true,
      inQuick: false
    })
  ]
}
