/** W13: many queues with little work each. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import * as Cost from "../Cost.js"
import { drain } from "../loads.js"
import { type Bench, jobsOf } from "../Stage.js"
import type { Measured, Workload } from "../Workload.js"

const queues = 100
const jobsOfQueue = 500

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, queues * jobsOfQueue)
    const { cost, perSecond } = yield* drain(bench, system, { jobs, queues, keepHistory: false })
    const details = { queues, jobs, ...Cost.details(cost) }
    return [{ workload: "W13", value: perSecond, unit: "jobs/s", better: "higher", details }] satisfies Array<Measured>
  })

export const w13: Workload = {
  id: "W13",
  title: "many queues",
  cases: [{ id: "W13", title: "drain of 100 queues with 500 jobs each", inQuick: true, run: measure }]
}
