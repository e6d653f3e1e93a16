/** W3: single enqueues, each answered when it is durable, from 32 callers in one producer process; nobody works. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { type Bench, MeasureInvalid, open, shapeOf } from "../Stage.js"
import type { Measured, Workload } from "../Workload.js"

const callers = 32
const forMs = 5_000
const warmForMs = 500
/** A test of the harness asks for less. */
const forMsMin = 200

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
    yield* stage.serve
    const producer = yield* stage.produce
    const loop = { shape: shapeOf(stage), callers }
    const warm = yield* producer.ask("closedLoop", { ...loop, firstIndex: 0, forMs: warmForMs })
    yield* stage.checkpoint
    const submitted = yield* producer.ask("closedLoop", {
      ...loop,
      firstIndex: warm.acknowledged + warm.failed,
      forMs: Math.max(forMsMin, forMs * Math.min(1, bench.sizes.scale))
    })
    const { acknowledged, answer, failed, failure, fromUs, toUs } = submitted
    if (acknowledged === 0) return yield* new MeasureInvalid({ reason: `no enqueue was answered: ${failure}` })
    const details = { callers, acknowledged, failed, p50Ms: answer.p50, p99Ms: answer.p99 }
    const value = acknowledged / (toUs - fromUs) * 1_000_000
    return [{ workload: "W3", value, unit: "jobs/s", better: "higher", details }] satisfies Array<Measured>
  })

export const w3: Workload = {
  id: "W3",
  title: "single enqueue",
  cases: [{ id: "W3", title: "single durable enqueue, 32 callers", inQuick: true, run: measure }]
}
