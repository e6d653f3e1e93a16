/**
 * BullMQ: lists and sorted sets in Redis. What an enqueue survives is decided by the server's `appendfsync`, so each way
 * is a variant: `everysec` may lose the last second, `always` compares with a database commit.
 */
import type * as Bullmq from "bullmq"
import type * as Ioredis from "ioredis"
import type { Job, JobPayload, Place, Producer, Running, System, WorkOptions } from "../System.js"
import { load, versionOf } from "./installed.js"
import { chunksByQueue, payloadOf } from "./payload.js"

/** Jobs of one process at a time, of all queues together. */
const concurrency = 200
const bulkSize = 1_000

const prefix = "bull"
const queueName = (queue: number) => `bench-${queue}`
/** How many queues there are: Redis does not know. */
const queuesKey = "bench:queues"

const loadBullmq = () => load<typeof Bullmq>("bullmq")

const connectionOf = ({ redisUrl }: Place) => {
  const url = new URL(redisUrl)
  return {
    host: url.hostname,
    port: Number(url.port),
    ...(url.username === "" ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === "" ? {} : { password: decodeURIComponent(url.password) })
  }
}

const openQueue = async (place: Place, queue: number): Promise<Bullmq.Queue> => {
  const { Queue } = await loadBullmq()
  const opened = new Queue(queueName(queue), { connection: connectionOf(place), prefix })
  opened.on("error", (error) => console.error("bullmq:", error))
  await opened.waitUntilReady()
  return opened
}

const prepare: System["prepare"] = async (place, { queues }) => {
  const redis = await connect(place)
  await redis.set(queuesKey, queues)
  await redis.quit()
}

const optionsOf = ({ dueMs }: Job) => dueMs === 0 ? {} : { delay: Math.max(0, dueMs - Date.now()) }

const produce = async (place: Place): Promise<Producer> => {
  const opened = new Map<number, Promise<Bullmq.Queue>>()
  const queueOf = (queue: number) => {
    const known = opened.get(queue) ?? openQueue(place, queue)
    opened.set(queue, known)
    return known
  }
  return {
    enqueueBulk: async (jobs) => {
      for (const { jobs: chunk, queue } of chunksByQueue(jobs, bulkSize)) {
        const target = await queueOf(queue)
        await target.addBulk(chunk.map((job) => ({ name: "run", data: payloadOf(job), opts: optionsOf(job) })))
      }
    },
    enqueueOne: async (job) => {
      const target = await queueOf(job.queue)
      await target.add("run", payloadOf(job), optionsOf(job))
    },
    close: async () => {
      for (const queue of opened.values()) await (await queue).close()
    }
  }
}

const work = async (place: Place, options: WorkOptions): Promise<Running> => {
  const { Worker } = await loadBullmq()
  const atATime = options.concurrency === 0 ? concurrency : options.concurrency
  const workers = Array.from({ length: options.queues }, (_, queue) => {
    const worker = new Worker<JobPayload>(queueName(queue), async (job) => options.handler(job.data), {
      connection: connectionOf(place),
      prefix,
      concurrency: Math.max(1, Math.floor(atATime / options.queues)),
      ...(options.keepHistory ? {} : { removeOnComplete: { count: 0 } })
    })
    worker.on("error", (error) => console.error("bullmq:", error))
    return worker
  })
  await Promise.all(workers.map((worker) => worker.waitUntilReady()))
  return { close: async () => void await Promise.all(workers.map((worker) => worker.close())) }
}

const connect = async (place: Place): Promise<Ioredis.Redis> => {
  const { Redis } = await load<typeof Ioredis>("ioredis")
  const redis = new Redis({ ...connectionOf(place), lazyConnect: true })
  redis.on("error", () => undefined)
  await redis.connect()
  return redis
}

interface Asking {
  readonly redis: Ioredis.Redis
  readonly queues: number
  /** Closes the connection when nobody has asked for a while, so that it keeps no process alive. */
  readonly idle: NodeJS.Timeout
}

/** Longer than the harness waits between two questions. */
const idleMs = 1_000

const asking = new Map<string, Promise<Asking>>()

const ask = async (place: Place): Promise<Asking> => {
  const redis = await connect(place)
  const queues = Number(await redis.get(queuesKey))
  const idle = setTimeout(() => {
    asking.delete(place.redisUrl)
    redis.disconnect()
  }, idleMs)
  return { redis, queues, idle }
}

const remaining: System["remaining"] = async (place) => {
  const known = asking.get(place.redisUrl) ?? ask(place)
  asking.set(place.redisUrl, known)
  known.catch(() => asking.delete(place.redisUrl))
  const { idle, queues, redis } = await known
  idle.refresh()
  const batch = redis.pipeline()
  for (let queue = 0; queue < queues; queue++) {
    const key = `${prefix}:${queueName(queue)}`
    batch.llen(`${key}:wait`).llen(`${key}:active`).zcard(`${key}:delayed`).zcard(`${key}:prioritized`)
  }
  const answers = await batch.exec() ?? []
  return answers.reduce((sum, [error, count]) => {
    if (error !== null) throw error
    return sum + Number(count)
  }, 0)
}

const systemOf = (variant: Pick<System, "id" | "durability"> & { readonly appendfsync: string }): System => ({
  id: variant.id,
  peer: "bullmq",
  version: versionOf("bullmq"),
  settings: { concurrency, bulkSize, appendfsync: variant.appendfsync, redisClient: `ioredis ${versionOf("ioredis")}` },
  needs: "redis",
  durability: variant.durability,
  keepsHistory: "choice",
  workloads: ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W13"],
  prepare,
  produce,
  work,
  remaining
})

export const systems: ReadonlyArray<System> = [
  systemOf({ id: "bullmq:aof", durability: "second", appendfsync: "everysec" }),
  systemOf({ id: "bullmq:aofAlways", durability: "commit", appendfsync: "always" })
]
