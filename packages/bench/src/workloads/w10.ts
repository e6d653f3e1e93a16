/**
 * W10: 100 tenants, of which one has nine of ten arrivals, and more arrive than can be done. How long do the others wait, beside
 * the same load without a word about tenants; and how evenly are the starts shared while all have some waiting.
 */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { drain, openPair, steady } from "../loads.js"
import { type Bench, jobsOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"
import { needs } from "./features.js"

const tenants = 100
/** Some 1,800 jobs a second can be done, 2,400 arrive; 240 of them are of the 99 small tenants. */
const work = { concurrency: 10, handlerMs: 5 }
const perSecond = 2_400
const forMs = 10_000
const backlogJobs = 20_000

const arrivals = (isTold: boolean): Case => ({
  id: isTold ? "W10" : "W10-none",
  title: `wait of the small tenants, p95${isTold ? "" : ", the system not told of tenants"}`,
  inQuick: false,
  skip: needs("fairness"),
  run: (bench: Bench, system: Description) =>
    Effect.gen(function*() {
      const pair = yield* openPair(bench, system, { ...work, tenants })
      const { jobs, report } = yield* steady(pair, {
        perSecond,
        forMs: forMs * Math.min(1, bench.sizes.scale),
        overMs: 0,
        shape: isTold ? { tenants } : {}
      })
      const details = { jobs, started: report.handled, p50Ms: report.others.p50, allP95Ms: report.start.p95 }
      const workload = isTold ? "W10" : "W10-none"
      return [{ workload, value: report.others.p95, unit: "ms", better: "lower", details }] satisfies Array<Measured>
    })
})

const backlog = (isTold: boolean): Case => ({
  id: isTold ? "W10-jain" : "W10-jain-none",
  title: `Jain's index of the first ten starts per tenant${isTold ? "" : ", the system not told of tenants"}`,
  inQuick: false,
  skip: needs("fairness"),
  run: (bench: Bench, system: Description) =>
    Effect.gen(function*() {
      const jobs = jobsOf(bench, system, backlogJobs)
      const shape = isTold ? { tenants } : {}
      const { perSecond, reports } = yield* drain(bench, system, { jobs, ...work, tenants, shape })
      const workload = isTold ? "W10-jain" : "W10-jain-none"
      const details = { jobs, perSecond }
      return [
        { workload, value: reports[0]!.jain, unit: "index", better: "higher", details }
      ] satisfies Array<Measured>
    })
})

export const w10: Workload = {
  id: "W10",
  title: "fairness: 100 tenants, one with 90 % of arrivals",
  cases: [arrivals(true), arrivals(false), backlog(true), backlog(false)]
}
