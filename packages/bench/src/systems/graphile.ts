/**
 * graphile-worker: rows of one table, fetched in batches into a local queue, deleted when done. Its settings are those of
 * its own performance test.
 */
import type * as Graphile from "graphile-worker"
import type { Job, JobPayload, Place, Producer, Running, System, WorkOptions } from "../System.js"
import { load, versionOf } from "./installed.js"
import { payloadOf } from "./payload.js"
import { countRows } from "./storeCount.js"

interface Variant {
  readonly id: string
  readonly workloads: ReadonlyArray<string>
  /** Jobs that become due are found by this poll alone, ms. */
  readonly pollInterval: number
}

const concurrentJobs = 24
/** Jobs a worker takes from the database at once; at least as many as run at a time. */
const localQueueSize = 500
const refetchDelayMs = 10
const producerPoolSize = 20
const insertSize = 10_000

const taskName = (queue: number) => `bench-${queue}`

const loadGraphile = async () => {
  const graphile = await load<typeof Graphile>("graphile-worker")
  const logger = new graphile.Logger(() => (level, message) => {
    if (level === "error" || level === "warning") console.error(`graphile-worker: ${message}`)
  })
  return { ...graphile, logger }
}

const prepare: System["prepare"] = async ({ databaseUrl }) => {
  const { logger, runMigrations } = await loadGraphile()
  await runMigrations({ connectionString: databaseUrl, logger })
}

/** Runs of one of its queues do not run together: what a key asks for. */
const specOf = ({ dueMs, key }: Job) => ({
  ...(dueMs === 0 ? {} : { runAt: new Date(dueMs) }),
  ...(key === undefined ? {} : { queueName: key })
})

const produce = async ({ databaseUrl }: Place): Promise<Producer> => {
  const { logger, makeWorkerUtils } = await loadGraphile()
  const client = await makeWorkerUtils({ connectionString: databaseUrl, maxPoolSize: producerPoolSize, logger })
  return {
    enqueueBulk: async (jobs) => {
      for (let at = 0; at < jobs.length; at += insertSize) {
        await client.addJobs(
          jobs.slice(at, at + insertSize).map((job) => ({
            identifier: taskName(job.queue),
            payload: payloadOf(job),
            ...specOf(job)
          }))
        )
      }
    },
    enqueueOne: async (job) => {
      await client.addJob(taskName(job.queue), payloadOf(job), specOf(job))
    },
    close: async () => client.release()
  }
}

const work = (variant: Variant) => async (place: Place, options: WorkOptions): Promise<Running> => {
  const { logger, run } = await loadGraphile()
  const concurrency = options.concurrency === 0 ? concurrentJobs : options.concurrency
  const runJob = (payload: unknown) => options.handler(payload as JobPayload)
  const runner = await run({
    preset: {
      worker: {
        connectionString: place.databaseUrl,
        concurrentJobs: concurrency,
        maxPoolSize: concurrency + 1,
        pollInterval: variant.pollInterval,
        localQueue: {
          size: Math.max(localQueueSize, concurrency),
          refetchDelay: { durationMs: refetchDelayMs }
        },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0
      }
    },
    logger,
    // Whoever started this process ends it through `close`.
    noHandleSignals: true,
    parsedCronItems: [],
    taskList: Object.fromEntries(Array.from({ length: options.queues }, (_, queue) => [taskName(queue), runJob]))
  })
  runner.promise.catch((error) => console.error("graphile-worker:", error))
  return { close: async () => runner.stop() }
}

const systemOf = (variant: Variant): System => ({
  id: variant.id,
  peer: "graphile-worker",
  version: versionOf("graphile-worker"),
  settings: {
    concurrentJobs,
    poolSize: concurrentJobs + 1,
    localQueueSize,
    refetchDelayMs,
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    pollInterval: variant.pollInterval,
    producerPoolSize,
    insertSize
  },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "never",
  workloads: variant.workloads,
  supports: ["keys"],
  prepare,
  produce,
  work: work(variant),
  remaining: (place) => countRows(place.databaseUrl, "from graphile_worker._private_jobs")
})

export const systems: ReadonlyArray<System> = [
  systemOf({
    id: "graphile:batch",
    workloads: ["W1", "W2", "W3", "W7", "W8", "W9", "W11", "W12", "W13"],
    // Its default.
    pollInterval: 2_000
  }),
  systemOf({ id: "graphile:batchpoll", workloads: ["W4", "W5", "W6"], pollInterval: 100 })
]
