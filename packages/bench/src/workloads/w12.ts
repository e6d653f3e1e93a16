/** W12: W1 and W2, smaller, with 1 ms more on each round trip between the system and PostgreSQL. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { drain } from "../loads.js"
import { type Bench, jobsOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"
import { enqueue } from "./w1.js"

const jobsWhole = 20_000
const storeDelayMs = 1

const skip = (system: Description) => system.needs === "postgres" ? undefined : "not on PostgreSQL"

const far = (
  id: string,
  title: string,
  rate: (bench: Bench, system: Description, jobs: number) => ReturnType<typeof rateOf>
): Case => ({
  id,
  title,
  inQuick: true,
  skip,
  run: (bench, system) =>
    Effect.gen(function*() {
      const jobs = jobsOf(bench, system, jobsWhole)
      const value = yield* rate(bench, system, jobs)
      const details = { jobs, storeDelayMs }
      return [{ workload: id, value, unit: "jobs/s", better: "higher", details }] satisfies Array<Measured>
    })
})

const rateOf = (bench: Bench, system: Description, jobs: number) =>
  Effect.map(enqueue(bench, system, { jobs, storeDelayMs }), ({ perSecond }) => perSecond)

export const w12: Workload = {
  id: "W12",
  title: "distant store",
  cases: [
    far("W12", "bulk enqueue, 1 ms to the store", rateOf),
    far(
      "W12-drain",
      "drain, 1 ms to the store",
      (bench, system, jobs) =>
        Effect.map(drain(bench, system, { jobs, storeDelayMs, keepHistory: false }), ({ perSecond }) => perSecond)
    )
  ]
}
