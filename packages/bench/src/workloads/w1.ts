/** W1: how fast many jobs are taken in, from one producer, while nobody works. */
import { Effect, Option, type Scope } from "effect"
import type { Description } from "../Calls.js"
import * as Cost from "../Cost.js"
import { fill } from "../loads.js"
import { type Bench, jobsOf, type MeasureFailed, open, shapeOf } from "../Stage.js"
import type { Measured, Workload } from "../Workload.js"

const jobsWhole = 100_000
/** A quick run must fit eleven other measurements into ten minutes. */
const jobsQuick = 50_000
/** Before the measured ones: connections are open, statements are known. */
const jobsWarm = 5_000

export interface EnqueueOptions {
  readonly jobs: number
  readonly fillerChars?: number
  readonly storeDelayMs?: number
}

/** Jobs per second, and what one cost. */
export const enqueue = (
  bench: Bench,
  system: Description,
  { fillerChars, jobs, storeDelayMs }: EnqueueOptions
): Effect.Effect<{ readonly perSecond: number; readonly cost: Cost.Cost }, MeasureFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const delay = storeDelayMs === undefined ? {} : { storeDelayMs }
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true, ...delay })
    const serve = yield* stage.serve
    const producer = yield* stage.produce
    const roles = [...Option.toArray(serve), producer]
    const shape = shapeOf(stage, fillerChars === undefined ? {} : { fillerChars })
    const bulk = { shape, dueMs: 0, dueSpreadMs: 0 }
    const warm = jobsOf(bench, system, jobsWarm)
    const cold = yield* Cost.mark(stage, roles)
    yield* fill(producer, { ...bulk, firstIndex: jobs, count: warm })
    yield* stage.checkpoint
    const before = yield* Cost.mark(stage, roles)
    const us = yield* fill(producer, { ...bulk, firstIndex: 0, count: jobs })
    const cost = yield* Cost.since(stage, { before, roles, runs: jobs, rows: { before: cold, runs: jobs + warm } })
    return { perSecond: jobs / us * 1_000_000, cost }
  })

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, bench.sizes.quick ? jobsQuick : jobsWhole)
    const { cost, perSecond } = yield* enqueue(bench, system, { jobs })
    const details = { jobs, ...Cost.details(cost) }
    return [{ workload: "W1", value: perSecond, unit: "jobs/s", better: "higher", details }] satisfies Array<Measured>
  })

export const w1: Workload = {
  id: "W1",
  title: "bulk enqueue",
  cases: [{ id: "W1", title: "bulk enqueue", inQuick: true, run: measure }]
}
