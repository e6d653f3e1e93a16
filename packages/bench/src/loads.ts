/** The loads that workloads are made of: fill a store, drain it, keep a steady rate. */
import { Effect, type Scope } from "effect"
import type { Bulk, Description, JobShape, Submitted, Usage, WorkReport } from "./Calls.js"
import * as Cost from "./Cost.js"
import type { Role, RoleFailed } from "./Role.js"
import {
  type Bench,
  type MeasureFailed,
  MeasureInvalid,
  NotWithin,
  open,
  shapeOf,
  type Stage,
  type WorkOptions
} from "./Stage.js"

/** Jobs of one bulk call: more would be made and sent as one piece of memory. */
const bulkMax = 100_000
/** Work that is slower than this is not waited for, jobs per second. */
const slowestPerSecond = 50
/** For anything to start at all, ms. */
const startWithinMs = 60_000
/** How often the counts of several workers are added up. */
const lookEvery = "5 millis"

/** How long `jobs` may take, ms. */
export const withinMs = (jobs: number): number => startWithinMs + jobs / slowestPerSecond * 1_000

/** µs between the first call and the last answer; making the jobs does not count. */
export const fill = (
  producer: Role,
  bulk: Bulk
): Effect.Effect<number, MeasureFailed> =>
  Effect.gen(function*() {
    let us = 0
    for (let done = 0; done < bulk.count; done += bulkMax) {
      const count = Math.min(bulkMax, bulk.count - done)
      const { fromUs, toUs } = yield* producer.ask("bulk", { ...bulk, firstIndex: bulk.firstIndex + done, count })
      us += toUs - fromUs
    }
    return us
  })

/** Jobs to work on, in a store nobody works on; its processes have ended when this is done. */
export const preload = (
  stage: Stage,
  jobs: number,
  shape: Partial<JobShape> = {}
): Effect.Effect<void, MeasureFailed> =>
  Effect.scoped(
    Effect.gen(function*() {
      yield* stage.serve
      const producer = yield* stage.produce
      const bulk = { firstIndex: 0, count: jobs, dueMs: 0, dueSpreadMs: 0 }
      yield* fill(producer, { ...bulk, shape: shapeOf(stage, shape) })
    })
  )

/** Until so many different jobs have started in all of them. */
export const awaitStarted = (
  workers: ReadonlyArray<Role>,
  jobs: number
): Effect.Effect<void, NotWithin | RoleFailed> => {
  const started = () => workers.reduce((sum, worker) => sum + worker.started(), 0)
  return Effect.sleep(lookEvery).pipe(
    Effect.repeat({ until: () => started() >= jobs }),
    Effect.timeoutFail({
      duration: withinMs(jobs),
      onTimeout: () => new NotWithin({ ms: withinMs(jobs), what: `only ${started()} of ${jobs} jobs have started` })
    }),
    Effect.asVoid,
    Effect.raceFirst(Effect.raceAll(workers.map((worker) => worker.failed)))
  )
}

export interface DrainOptions {
  readonly jobs: number
  readonly queues?: number
  readonly workers?: number
  readonly keepHistory?: boolean
  readonly concurrency?: number
  readonly handlerMs?: number
  readonly shape?: Partial<JobShape>
  /** As `WorkInput.tenants`. */
  readonly tenants?: number
  readonly storeDelayMs?: number
  /** Workers that do nothing else, beside a server, where the system has that. */
  readonly apart?: boolean
}

export interface Drained {
  /** Completed in the store, from the first start on. */
  readonly perSecond: number
  readonly startedPerSecond: number
  readonly reports: ReadonlyArray<WorkReport>
  readonly usages: ReadonlyArray<Usage>
  readonly cost: Cost.Cost
}

/** Preloads a store, then has workers empty it. */
export const drain = (
  bench: Bench,
  system: Description,
  options: DrainOptions
): Effect.Effect<Drained, MeasureFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const { concurrency = 0, handlerMs = 0, jobs, keepHistory = true, queues = 1, shape = {}, workers: n = 1 } = options
    const { apart = false, storeDelayMs } = options
    const stage = yield* open(bench, system, {
      queues,
      keepHistory,
      ...(storeDelayMs === undefined ? {} : { storeDelayMs })
    })
    yield* preload(stage, jobs, shape)
    yield* stage.checkpoint
    if (apart && system.hasWorkApart) yield* stage.serve
    const before = yield* Cost.mark(stage, [])
    const work = stage.work({ concurrency, handlerMs, keys: shape.keys ?? 0, tenants: options.tenants ?? 0, apart })
    const workers = yield* Effect.all(Array.from({ length: n }, () => work), { concurrency: n })
    yield* awaitStarted(workers, jobs)
    const emptyUs = yield* stage.awaitEmpty(withinMs(jobs))
    const reports = yield* Effect.forEach(workers, (worker) => worker.ask("report", { overMs: 0 }))
    const usages = yield* Effect.forEach(workers, (worker) => worker.ask("usage", null))
    const cost = yield* Cost.since(stage, { before, roles: workers, runs: jobs })
    const handled = reports.reduce((sum, report) => sum + report.handled, 0)
    if (handled !== jobs) return yield* new MeasureInvalid({ reason: `${handled} starts of ${jobs} jobs` })
    const firstUs = Math.min(...reports.filter((report) => report.firstUs > 0).map((report) => report.firstUs))
    const lastUs = Math.max(...reports.map((report) => report.lastUs))
    return {
      perSecond: jobs / (emptyUs - firstUs) * 1_000_000,
      startedPerSecond: jobs / Math.max(1, lastUs - firstUs) * 1_000_000,
      reports,
      usages,
      cost
    }
  })

/** A producer and one worker that have met before anything is measured: connections are open, code is warm. */
export interface Pair {
  readonly stage: Stage
  readonly producer: Role
  readonly worker: Role
  /** Index of the next job. */
  next: number
}

const warmUp = { perSecond: 200, forMs: 2_000 }
const inFlightMax = 10_000
/** For the last submissions of an open loop to be answered, ms. */
const answersWithinMs = 60_000
/** What has not started this long after the last submission has not started in time. */
export const stragglersMs = 2_000

export const openPair = (
  bench: Bench,
  system: Description,
  work: Partial<WorkOptions> = {}
): Effect.Effect<Pair, MeasureFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
    const worker = yield* stage.work(work)
    const producer = yield* stage.produce
    const warm: Pair = { stage, producer, worker, next: 0 }
    yield* steady(warm, { ...warmUp, overMs: 0 })
    yield* stage.checkpoint
    return warm
  })

export interface Steady {
  readonly submitted: Submitted
  readonly report: WorkReport
  readonly jobs: number
  /** Jobs that started later than `overMs`, or not at all. */
  readonly late: number
}

/** An open loop: so many jobs a second, whether or not they are answered and done. */
export const steady = (
  pair: Pair,
  options: {
    readonly perSecond: number
    readonly forMs: number
    readonly overMs: number
    readonly shape?: Partial<JobShape>
  }
): Effect.Effect<Steady, MeasureFailed> =>
  Effect.gen(function*() {
    const { producer, stage, worker } = pair
    const { forMs, overMs, perSecond } = options
    const firstIndex = pair.next
    const jobs = Math.round(perSecond * forMs / 1_000)
    yield* worker.ask("forget", null)
    pair.next += jobs
    const loop = { shape: shapeOf(stage, options.shape), firstIndex, perSecond, forMs, inFlightMax }
    const submitted = yield* producer.ask("openLoop", loop, forMs + answersWithinMs)
    yield* Effect.timeoutOption(worker.awaitStarted(jobs), stragglersMs)
    const report = yield* worker.ask("report", { overMs })
    return { submitted, report, jobs, late: Math.max(0, jobs - report.handled) + report.over }
  })
