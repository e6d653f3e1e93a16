/** DBOS Transact: a job is a workflow without steps, dequeued from a table by polling. */
import type * as Dbos from "@dbos-inc/dbos-sdk"
import { randomUUID } from "node:crypto"
import type { Job, JobPayload, Place, Producer, Running, System, WorkOptions } from "../System.js"
import { load, versionOf } from "./installed.js"
import { eachInFlight, payloadOf } from "./payload.js"
import { countRows } from "./storeCount.js"

const poolSize = 32
/** Default 1000; what a job waits for, ms. */
const minPollingIntervalMs = 50

const applicationName = "bench"
/** Without one it is a hash of the sources, which differ between the processes of a measurement. */
const applicationVersion = "bench"
const workflowName = "run"

const queueName = (queue: number) => `bench-${queue}`

const loadDbos = () => load<typeof Dbos>("@dbos-inc/dbos-sdk")

const logger: Dbos.DLogger = {
  info: () => undefined,
  debug: () => undefined,
  warn: (entry) => console.error("dbos:", entry),
  error: (entry) => console.error("dbos:", entry)
}

const openClient = async ({ databaseUrl }: Place): Promise<Dbos.DBOSClient> => {
  const { DBOSClient } = await loadDbos()
  return DBOSClient.create({
    systemDatabaseUrl: databaseUrl,
    systemDatabasePoolSize: poolSize,
    applicationName,
    logger
  })
}

const prepare: System["prepare"] = async (place, { queues }) => {
  const { DBOS } = await loadDbos()
  DBOS.setConfig(configOf(place))
  await DBOS.launch()
  for (let queue = 0; queue < queues; queue++) {
    await DBOS.registerQueue(queueName(queue), { minPollingIntervalMs, onConflict: "always_update" })
  }
  await DBOS.shutdown()
}

const produce = async (place: Place): Promise<Producer> => {
  const client = await openClient(place)
  const send = async (job: Job) => {
    const delaySeconds = job.dueMs === 0 ? 0 : Math.max(0, (job.dueMs - Date.now()) / 1_000)
    const options = { queueName: queueName(job.queue), workflowName, appVersion: applicationVersion }
    await client.enqueue({ ...options, ...(delaySeconds > 0 ? { delaySeconds } : {}) }, payloadOf(job))
  }
  return {
    enqueueBulk: (jobs) => eachInFlight(jobs, poolSize, send),
    enqueueOne: send,
    close: () => client.destroy()
  }
}

const configOf = ({ databaseUrl }: Place): Dbos.DBOSConfig => ({
  name: applicationName,
  systemDatabaseUrl: databaseUrl,
  systemDatabasePoolSize: poolSize,
  applicationVersion,
  // With one name for all, a process that starts would take over what the others run.
  executorID: randomUUID(),
  logger
})

const work = async (place: Place, options: WorkOptions): Promise<Running> => {
  const { DBOS } = await loadDbos()
  DBOS.setConfig(configOf(place))
  DBOS.registerWorkflow(async (job: JobPayload) => options.handler(job), { name: workflowName })
  await DBOS.launch()
  const workerConcurrency = Math.floor(options.concurrency / options.queues)
  for (let queue = 0; queue < options.queues && workerConcurrency > 0; queue++) {
    const parameters = { minPollingIntervalMs, workerConcurrency, onConflict: "always_update" } as const
    await DBOS.registerQueue(queueName(queue), parameters)
  }
  return { close: () => DBOS.shutdown() }
}

const live = "from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"

export const systems: ReadonlyArray<System> = [{
  id: "dbos:tuned",
  peer: "@dbos-inc/dbos-sdk",
  version: versionOf("@dbos-inc/dbos-sdk"),
  settings: { poolSize, minPollingIntervalMs, enqueuesInFlight: poolSize },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "always",
  workloads: ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W12", "W13"],
  unsupported: { W11: "1,000/s are beyond it: W5" },
  share: 0.05,
  prepare,
  produce,
  work,
  remaining: ({ databaseUrl }) => countRows(databaseUrl, live)
}]
