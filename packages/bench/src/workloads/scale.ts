/** How Orrery grows: with queues, nodes, waiting jobs and payloads. Points of series, not comparisons. */
import { Effect, Option } from "effect"
import type { Description } from "../Calls.js"
import { drain, fill } from "../loads.js"
import { type Bench, jobsOf, type MeasureFailed, open, shapeOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"
import { enqueue } from "./w1.js"

const jobsWhole = 50_000
/** Payloads of 64 KiB come to 100 MB with these. */
const bytesMax = 100 * 1024 * 1024
/** Of a payload without its filler. */
const payloadRest = 68

const pointsOf = (options: {
  readonly series: string
  readonly title: string
  readonly xs: ReadonlyArray<number>
  readonly rate: (bench: Bench, system: Description, x: number) => Effect.Effect<number, MeasureFailed>
}): ReadonlyArray<Case> =>
  options.xs.map((x) => ({
    id: `${options.series}@${x}`,
    title: options.title,
    inQuick: true,
    skip: (system) => system.peer === "orrery" ? undefined : "only Orrery",
    run: (bench, system) =>
      Effect.map(options.rate(bench, system, x), (value) =>
        [
          { workload: `${options.series}@${x}`, value, unit: "jobs/s", better: "higher", details: {} }
        ] satisfies Array<Measured>)
  }))

const drainRate = (bench: Bench, system: Description, options: Partial<Parameters<typeof drain>[2]>) =>
  Effect.scoped(
    Effect.map(
      drain(bench, system, { jobs: jobsOf(bench, system, jobsWhole), ...options }),
      ({ perSecond }) => perSecond
    )
  )

const enqueueRate = (bench: Bench, system: Description, options: Partial<Parameters<typeof enqueue>[2]>) =>
  Effect.scoped(
    Effect.map(
      enqueue(bench, system, { jobs: jobsOf(bench, system, jobsWhole), ...options }),
      ({ perSecond }) => perSecond
    )
  )

/** Each queue is one partition: one writer. */
const partitions = pointsOf({
  series: "scale-partitions",
  title: "drain, by partitions",
  xs: [1, 2, 4],
  rate: (bench, system, queues) => drainRate(bench, system, { queues })
})

const nodes = pointsOf({
  series: "scale-nodes",
  title: "drain of 8 queues, by nodes on this one machine",
  xs: [1, 2, 3, 4],
  rate: (bench, system, workers) => drainRate(bench, system, { workers, queues: 8 })
})

/** How fast a server takes jobs in that holds so many already. */
const whileWaiting = (bench: Bench, system: Description, waiting: number) =>
  Effect.scoped(Effect.gen(function*() {
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
    const server = yield* stage.serve
    const producer = yield* stage.produce
    const bulk = { shape: shapeOf(stage), dueMs: 0, dueSpreadMs: 0 }
    const before = Math.max(1, Math.round(waiting * bench.sizes.scale))
    yield* fill(producer, { ...bulk, firstIndex: 0, count: before })
    yield* stage.checkpoint
    const jobs = jobsOf(bench, system, jobsWhole / 2)
    const us = yield* fill(producer, { ...bulk, firstIndex: before, count: jobs })
    yield* Effect.forEach(Option.toArray(server), (role) => role.close, { discard: true })
    return jobs / us * 1_000_000
  }))

const waiting = pointsOf({
  series: "scale-waiting",
  title: "bulk enqueue, by jobs that wait already",
  xs: [10_000, 100_000, 1_000_000],
  rate: whileWaiting
})

const drainWaiting = pointsOf({
  series: "scale-drain",
  title: "drain, by jobs that wait",
  xs: [10_000, 100_000, 1_000_000],
  rate: (bench, system, x) => drainRate(bench, system, { jobs: jobsOf(bench, system, x), keepHistory: false })
})

const payloadOf = (bench: Bench, system: Description, bytes: number) => ({
  jobs: Math.min(jobsOf(bench, system, jobsWhole), Math.round(bytesMax / bytes)),
  fillerChars: Math.max(0, bytes - payloadRest)
})

const payloadEnqueue = pointsOf({
  series: "scale-payload-enqueue",
  title: "bulk enqueue, by bytes of payload",
  xs: [100, 1_024, 8_192, 65_536],
  rate: (bench, system, bytes) => enqueueRate(bench, system, payloadOf(bench, system, bytes))
})

const payloadDrain = pointsOf({
  series: "scale-payload-drain",
  title: "drain, by bytes of payload",
  xs: [100, 1_024, 8_192, 65_536],
  rate: (bench, system, bytes) => {
    const { fillerChars, jobs } = payloadOf(bench, system, bytes)
    return drainRate(bench, system, { jobs, shape: { fillerChars } })
  }
})

export const scale: Workload = {
  id: "scale",
  title: "growth",
  cases: [partitions, nodes, waiting, drainWaiting, payloadEnqueue, payloadDrain].flat()
}
