/** W7: memory (resident set): of a worker after a drain, of a server that holds waiting jobs. */
import { Effect, Option } from "effect"
import type { Description } from "../Calls.js"
import { drain, fill } from "../loads.js"
import { type Bench, jobsOf, MeasureInvalid, open, shapeOf } from "../Stage.js"
import type { Case, Measured, Workload } from "../Workload.js"

const drainJobs = 100_000
const waitingJobs = 100_000
const manyWaitingJobs = 1_000_000
/** Buffers of the last calls are let go. */
const settleFor = "2 seconds"

const megabytes = (bytes: number): number => bytes / 1_000_000

const afterDrain = (id: string, apart: boolean) => (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const jobs = jobsOf(bench, system, drainJobs)
    const { usages } = yield* drain(bench, system, { jobs, apart })
    const [usage] = usages
    const details = { jobs, mostMB: Math.round(megabytes(usage!.rssMaxBytes)) }
    return [{ workload: id, value: megabytes(usage!.rssBytes), unit: "MB", better: "lower", details }] satisfies Array<
      Measured
    >
  })

const waiting = (id: string, whole: number): Case => ({
  id,
  title: `memory of a server with ${whole.toLocaleString("en")} waiting jobs`,
  inQuick: false,
  roundsMax: 1,
  skip: (system) => system.hasServe ? undefined : "no process of it holds waiting jobs",
  run: (bench, system) =>
    Effect.gen(function*() {
      const jobs = jobsOf(bench, system, whole)
      const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
      const server = yield* stage.serve
      const producer = yield* stage.produce
      yield* fill(producer, { shape: shapeOf(stage), firstIndex: 0, count: jobs, dueMs: 0, dueSpreadMs: 0 })
      yield* Effect.sleep(settleFor)
      if (Option.isNone(server)) return yield* new MeasureInvalid({ reason: "there is no server" })
      const { rssBytes, rssMaxBytes } = yield* server.value.ask("usage", null)
      const details = { jobs, mostMB: Math.round(megabytes(rssMaxBytes)) }
      return [{ workload: id, value: megabytes(rssBytes), unit: "MB", better: "lower", details }] satisfies Array<
        Measured
      >
    })
})

export const w7: Workload = {
  id: "W7",
  title: "memory",
  cases: [
    {
      id: "W7",
      title: "memory of a worker process after a drain",
      inQuick: true,
      roundsMax: 1,
      run: afterDrain("W7", true)
    },
    {
      id: "W7-node",
      title: "memory of a node with the worker in it, after a drain",
      inQuick: true,
      roundsMax: 1,
      skip: (system) => system.hasWorkApart ? undefined : "its worker is no server",
      run: afterDrain("W7-node", false)
    },
    waiting("W7-waiting", waitingJobs),
    waiting("W7-million", manyWaitingJobs)
  ]
}
