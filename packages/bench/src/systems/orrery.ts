/**
 * Orrery itself. `work` is a whole node with the handlers in it, `serve` a node without, `workApart` a worker of its own;
 * producers are clients of the nodes, as applications are.
 */
import { OrreryNode } from "@orrery/cluster/OrreryNode"
import { Orrery, Task } from "@orrery/orrery"
import type { EnqueueError } from "@orrery/core/Errors"
import * as Handlers from "@orrery/core/Handlers"
import { Runs } from "@orrery/core/Runs"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import * as RemoteLinks from "@orrery/worker/RemoteLinks"
import * as Worker from "@orrery/worker/Worker"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Redacted, Schema } from "effect"
import { readFileSync } from "node:fs"
import type { Job, JobPayload, Place, Running, System, WorkOptions } from "../System.js"
import { countRows } from "./storeCount.js"

/** Handlers at a time when the workload does not say. */
const slotsDefault = 200
/** Runs of one `enqueueMany`, and how many such calls are under way: the next is encoded while one waits. */
const bulkRuns = 5_000
const bulkCalls = 4
/** Of one call: all of them together stay well below what a client lets wait. */
const bulkCharsMax = 8 * 1024 * 1024

const Payload = Schema.Struct({
  index: Schema.Number,
  submittedUs: Schema.Number,
  dueMs: Schema.Number,
  filler: Schema.String,
  key: Schema.optionalWith(Schema.String, { exact: true }),
  tenant: Schema.optionalWith(Schema.String, { exact: true })
})

/** The task of a queue. Producer and worker must make it alike: what stays of a run travels with its request. */
const taskFor = (queue: number, keepHistory: boolean, feature?: "keys" | "fairness") =>
  Task.make(`bench-${queue}`, {
    payload: Payload,
    success: Schema.Void,
    queue: `bench-${queue}`,
    retention: keepHistory ? "keep" : "none",
    ...(feature === "keys" ? { concurrency: { key: ({ key = "none" }: typeof Payload.Type) => key, limit: 1 } } : {}),
    ...(feature === "fairness" ? { fairnessKey: ({ tenant = "none" }: typeof Payload.Type) => tenant } : {})
  })

type BenchTask = ReturnType<typeof taskFor>

/** Logs go to the log of the benchmark; what is normal is not worth a line there. */
const quietly = Logger.minimumLogLevel(LogLevel.Warning)

const handlersOf = (options: WorkOptions) => {
  const [first, ...rest] = Array.from(
    { length: options.queues },
    (_, queue) => taskFor(queue, options.keepHistory).toLayer((job) => run(options.handler, job))
  )
  return Layer.mergeAll(first!, ...rest)
}

const node = async (place: Place, workerSlots: number, handlers?: ReturnType<typeof handlersOf>) => {
  const layer = Orrery.layerNode({
    databaseUrl: Redacted.make(place.databaseUrl),
    workerSlots,
    ...(handlers === undefined ? {} : { handlers })
  })
  const runtime = ManagedRuntime.make(Layer.provide(layer, quietly))
  const { dataAddress, fatal } = await runtime.runPromise(OrreryNode)
  // A fenced node must not go on, and its measurement is void.
  runtime.runFork(
    Effect.tapErrorCause(fatal, (cause) =>
      Effect.zipRight(
        Effect.logError("the node must leave", cause),
        Effect.sync(() => void process.exit(1))
      ))
  )
  return { address: dataAddress, close: () => runtime.dispose() } satisfies Running
}

const workApart = async (place: Place, options: WorkOptions): Promise<Running> => {
  const layer = Worker.layer({ slots: options.concurrency || slotsDefault }).pipe(
    Layer.provide(RemoteLinks.layer({ nodes: place.addresses })),
    Layer.provide(Layer.provideMerge(handlersOf(options), Handlers.layer))
  )
  const runtime = ManagedRuntime.make(Layer.provide(layer, quietly))
  await runtime.runPromise(Effect.void)
  return { close: () => runtime.dispose() }
}

const pools = (databaseUrl: string) =>
  PgPools.layer({ url: Redacted.make(databaseUrl), journalConnections: 1, readConnections: 1 })

const run = (handler: WorkOptions["handler"], job: JobPayload): Effect.Effect<void> =>
  Effect.suspend(() => {
    const waiting = handler(job)
    return waiting === undefined ? Effect.void : Effect.promise(() => waiting)
  })

const produce: System["produce"] = async (place, { keepHistory }) => {
  const runtime = ManagedRuntime.make(Layer.provide(Orrery.layerClient({ nodes: place.addresses }), quietly))
  const runs = await runtime.runPromise(Runs)
  const tasks = { plain: [] as Array<BenchTask>, keys: [] as Array<BenchTask>, fairness: [] as Array<BenchTask> }
  const taskOf = ({ key, queue, tenant }: Job) =>
    key !== undefined
      ? tasks.keys[queue] ??= taskFor(queue, keepHistory, "keys")
      : tenant !== undefined
      ? tasks.fairness[queue] ??= taskFor(queue, keepHistory, "fairness")
      : tasks.plain[queue] ??= taskFor(queue, keepHistory)
  const payloadOf = ({ dueMs, filler, index, key, submittedUs, tenant }: Job) => ({
    index,
    submittedUs,
    dueMs,
    filler,
    ...(key === undefined ? {} : { key }),
    ...(tenant === undefined ? {} : { tenant })
  })
  const request = (job: Job) => taskOf(job).request(payloadOf(job), job.dueMs > 0 ? { at: new Date(job.dueMs) } : {})
  const send = (jobs: ReadonlyArray<Job>): Effect.Effect<void, EnqueueError> => {
    const [first] = jobs
    const isPlain = (job: Job) => job.dueMs === 0 && job.queue === first?.queue
    return first !== undefined && jobs.every(isPlain)
      ? Effect.asVoid(Effect.provideService(taskOf(first).enqueueMany(jobs.map(payloadOf)), Runs, runs))
      : Effect.flatMap(Effect.forEach(jobs, request), runs.enqueueMany)
  }
  return {
    enqueueBulk: (jobs) =>
      runtime.runPromise(Effect.forEach(chunksOf(jobs), send, { concurrency: bulkCalls, discard: true })),
    enqueueOne: (job) => runtime.runPromise(send([job])),
    close: () => runtime.dispose()
  }
}

const chunksOf = (jobs: ReadonlyArray<Job>): ReadonlyArray<ReadonlyArray<Job>> => {
  // They are all of one size.
  const chars = Math.max(1, jobs[0]?.filler.length ?? 0)
  const size = Math.max(1, Math.min(bulkRuns, Math.floor(bulkCharsMax / chars)))
  return Array.from({ length: Math.ceil(jobs.length / size) }, (_, at) => jobs.slice(at * size, (at + 1) * size))
}

const manifest = JSON.parse(
  readFileSync(new URL("../../../orrery/package.json", import.meta.url), "utf8")
) as { readonly version: string }

export const systems: ReadonlyArray<System> = [{
  id: "orrery:default",
  peer: "orrery",
  version: manifest.version,
  settings: { workerSlots: slotsDefault },
  needs: "postgres",
  durability: "commit",
  keepsHistory: "choice",
  supports: ["keys", "fairness"],
  workloads: [
    ...["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9", "W10", "W11", "W12", "W13", "W14", "scale"]
  ],
  // As `orrery migrate` does; nodes would do it when they start.
  prepare: ({ databaseUrl }) => Effect.runPromise(Effect.provide(PgMigrations.run, pools(databaseUrl))),
  serve: (place) => node(place, 0),
  produce,
  work: (place, options) => node(place, options.concurrency || slotsDefault, handlersOf(options)),
  workApart,
  // Final runs are moved to the history.
  remaining: (place) => countRows(place.databaseUrl, "from orrery.runs")
}]
