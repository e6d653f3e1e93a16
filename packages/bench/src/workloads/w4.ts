/** W4: from the intended submission to the start of the handler, at 200/s, and one job at a time. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { openPair, steady, stragglersMs } from "../loads.js"
import { type Bench, NotWithin, shapeOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"

const perSecond = 200
const forMs = 15_000
const singles = 300
/** The system is idle again before the next one. */
const pause = "5 millis"
/** For one job on an idle system. */
const startWithinMs = 20_000

const openLoop = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const pair = yield* openPair(bench, system)
    const ms = forMs * Math.min(1, bench.sizes.scale)
    const { jobs, report, submitted } = yield* steady(pair, { perSecond, forMs: ms, overMs: 0 })
    if (report.handled < jobs) {
      const what = `only ${report.handled} of ${jobs} started: it falls behind ${perSecond}/s`
      return yield* new NotWithin({ ms: ms + stragglersMs, what })
    }
    const details = { jobs, p95Ms: report.start.p95, maxMs: report.start.max, failed: submitted.failed }
    return [
      { workload: "W4", value: report.start.p99, unit: "ms", better: "lower", details },
      { workload: "W4-p50", value: report.start.p50, unit: "ms", better: "lower", details }
    ] satisfies Array<Measured>
  })

const oneAtATime = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const { next, producer, stage, worker } = yield* openPair(bench, system, { tellEach: true })
    yield* worker.ask("forget", null)
    const jobs = Math.max(1, Math.round(singles * Math.min(1, bench.sizes.scale)))
    const one = { shape: shapeOf(stage), perSecond: 1_000, forMs: 1, inFlightMax: 1 }
    for (let n = 0; n < jobs; n++) {
      yield* producer.ask("openLoop", { ...one, firstIndex: next + n })
      yield* worker.awaitStarted(n + 1).pipe(Effect.timeoutFail({
        duration: startWithinMs,
        onTimeout: () => new NotWithin({ ms: startWithinMs, what: `job ${n} has not started` })
      }))
      yield* Effect.sleep(pause)
    }
    const { start } = yield* worker.ask("report", { overMs: 0 })
    const details = { jobs, p95Ms: start.p95, maxMs: start.max }
    return [
      { workload: "W4-idle", value: start.p50, unit: "ms", better: "lower", details },
      { workload: "W4-idle-p99", value: start.p99, unit: "ms", better: "lower", details }
    ] satisfies Array<Measured>
  })

const cases: ReadonlyArray<Case> = [
  { id: "W4", title: "pick-up latency at 200/s", inQuick: true, run: openLoop },
  { id: "W4-idle", title: "pick-up latency, one job at a time", inQuick: true, run: oneAtATime }
]

export const w4: Workload = { id: "W4", title: "pick-up latency", cases }
