/**
 * pg-boss: rows of one table, fetched and completed in batches. A batch is completed when its last handler is done.
 *
 * Its settings were searched for on the reference machine: six work configurations, three sizes of insert.
 */
import type * as PgBossModule from "pg-boss"
import type { Job, JobPayload, Place, Producer, Running, System, WorkOptions } from "../System.js"
import { load, versionOf } from "./installed.js"
import { chunksByQueue, payloadOf } from "./payload.js"
import { countRows } from "./storeCount.js"

interface Variant {
  readonly id: string
  readonly workloads: ReadonlyArray<string>
  readonly batchSize: number
  /** Batches at a time, of all queues together. */
  readonly localConcurrency: number
}

const poolSize = 20
const insertSize = 10_000
/** The least it takes, s. Jobs that become due are found by this poll alone. */
const pollingIntervalSeconds = 0.5

const queueName = (queue: number) => `bench-${queue}`

const start = async (place: Place, useListenNotify: boolean) => {
  const { PgBoss } = await load<typeof PgBossModule>("pg-boss")
  const boss = new PgBoss({ connectionString: place.databaseUrl, max: poolSize, useListenNotify })
  boss.on("error", (error) => console.error("pg-boss:", error))
  return boss.start()
}

const prepare: System["prepare"] = async (place, { queues }) => {
  const boss = await start(place, false)
  for (let queue = 0; queue < queues; queue++) await boss.createQueue(queueName(queue), { notify: true })
  await boss.stop()
}

const startAfter = ({ dueMs }: Job) => dueMs === 0 ? {} : { startAfter: new Date(dueMs) }

const produce = async (place: Place): Promise<Producer> => {
  const boss = await start(place, false)
  return {
    enqueueBulk: async (jobs) => {
      for (const { jobs: chunk, queue } of chunksByQueue(jobs, insertSize)) {
        await boss.insert(queueName(queue), chunk.map((job) => ({ data: payloadOf(job), ...startAfter(job) })))
      }
    },
    enqueueOne: async (job) => {
      await boss.send(queueName(job.queue), payloadOf(job), startAfter(job))
    },
    close: () => boss.stop()
  }
}

/** Batches at a time and their size, so that no more than `concurrency` handlers run at a time. */
const batchesOf = (variant: Variant, { concurrency, queues }: WorkOptions) => {
  const localConcurrency = Math.max(1, Math.floor(variant.localConcurrency / queues))
  if (concurrency === 0) return { localConcurrency, batchSize: variant.batchSize }
  const batches = Math.min(localConcurrency, concurrency)
  return { localConcurrency: batches, batchSize: Math.max(1, Math.floor(concurrency / batches / queues)) }
}

const work = (variant: Variant) => async (place: Place, options: WorkOptions): Promise<Running> => {
  const boss = await start(place, true)
  const workOptions = {
    ...batchesOf(variant, options),
    burstWhenBatchFull: true,
    pollingIntervalSeconds,
    notifyPollingIntervalSeconds: pollingIntervalSeconds
  }
  for (let queue = 0; queue < options.queues; queue++) {
    await boss.work<JobPayload>(queueName(queue), workOptions, async (jobs) => {
      await Promise.all(jobs.map(async ({ data }) => options.handler(data)))
    })
  }
  return { close: () => boss.stop() }
}

const live = "from pgboss.job where state in ('created', 'retry', 'active') and starts_with(name, 'bench-')"

const systemOf = (variant: Variant): System => ({
  id: variant.id,
  peer: "pg-boss",
  version: versionOf("pg-boss"),
  settings: {
    batchSize: variant.batchSize,
    localConcurrency: variant.localConcurrency,
    burstWhenBatchFull: true,
    useListenNotify: true,
    notify: true,
    pollingIntervalSeconds,
    notifyPollingIntervalSeconds: pollingIntervalSeconds,
    poolSize,
    insertSize
  },
  needs: "postgres",
  durability: "commit",
  // Completed jobs are deleted after 7 days, by its own maintenance.
  keepsHistory: "always",
  workloads: variant.workloads,
  prepare,
  produce,
  work: work(variant),
  remaining: (place) => countRows(place.databaseUrl, live)
})

export const systems: ReadonlyArray<System> = [
  systemOf({
    id: "pgboss:tuned",
    workloads: ["W1", "W2", "W3", "W6", "W7", "W8", "W11", "W12", "W13"],
    batchSize: 1_000,
    localConcurrency: 4
  }),
  systemOf({ id: "pgboss:lowlat", workloads: ["W4", "W5"], batchSize: 100, localConcurrency: 2 })
]
