/** W6: jobs with a due instant: how long after one that 20,000 share the last starts, and how late timed jobs start. */
import { Effect } from "effect"
import type { Description, WorkReport } from "../Calls.js"
import { fill } from "../loads.js"
import { type Bench, jobsOf, type MeasureFailed, NotWithin, open, shapeOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"

const burstJobs = 20_000
const spreadJobs = 2_000
const spreadMs = 10_000
/** From the first enqueue to the due instant: all must be stored by then. */
const leadMs = 8_000
/** For the last to start, after it was due. */
const lateMs = 120_000

const timed = (
  bench: Bench,
  system: Description,
  { jobs, overMs }: { readonly jobs: number; readonly overMs: number }
): Effect.Effect<WorkReport, MeasureFailed> =>
  Effect.scoped(Effect.gen(function*() {
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
    const worker = yield* stage.work()
    const producer = yield* stage.produce
    const dueMs = Date.now() + leadMs
    yield* fill(producer, { shape: shapeOf(stage), firstIndex: 0, count: jobs, dueMs, dueSpreadMs: overMs })
    if (Date.now() >= dueMs) {
      return yield* new NotWithin({ ms: leadMs, what: `the ${jobs} jobs were not stored before they were due` })
    }
    yield* Effect.raceFirst(worker.awaitStarted(jobs), worker.failed).pipe(Effect.timeoutFail({
      duration: lateMs,
      onTimeout: () => new NotWithin({ ms: lateMs, what: `only ${worker.started()} of ${jobs} jobs have started` })
    }))
    return yield* worker.ask("report", { overMs: 0 })
  }))

const burst = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, burstJobs)
    const { early, repeated, start } = yield* timed(bench, system, { jobs, overMs: 0 })
    const details = { jobs, early, repeated, p50Ms: start.p50 }
    return [{ workload: "W6", value: start.max, unit: "ms", better: "lower", details }] satisfies Array<Measured>
  })

const spread = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, spreadJobs)
    const { early, repeated, start } = yield* timed(bench, system, { jobs, overMs: spreadMs })
    const details = { jobs, early, repeated, p50Ms: start.p50, maxMs: start.max }
    return [{ workload: "W6-timed", value: start.p99, unit: "ms", better: "lower", details }] satisfies Array<Measured>
  })

const cases: ReadonlyArray<Case> = [
  { id: "W6", title: "all due at one instant: last start after it", inQuick: true, run: burst },
  { id: "W6-timed", title: "timed jobs over 10 s: p99 of their lateness", inQuick: true, run: spread }
]

export const w6: Workload = { id: "W6", title: "due jobs", cases }
