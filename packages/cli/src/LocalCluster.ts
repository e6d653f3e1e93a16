/** Several node and worker processes on this machine, kept running, stopped together. For `orrery up`, demos and tests. */
import { Data, Duration, Effect, Option, Redacted, type Scope } from "effect"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { exitCode } from "./ExitCode.js"
import * as Supervisor from "./Supervisor.js"

const main = fileURLToPath(new URL("../orrery.mjs", import.meta.url))

export interface LocalClusterOptions {
  readonly databaseUrl: Redacted.Redacted<string>
  readonly nodes: number
  /** Worker processes beside the nodes. Default 0. */
  readonly workers?: number
  /** Module with the task handlers, for nodes and workers. */
  readonly handlers?: string
  /** Slots of the worker in each node; 0: none. */
  readonly workerSlots?: number
  /** Slots of each worker process. */
  readonly slots?: number
  /** More variables for every process. */
  readonly env?: Readonly<Record<string, string>>
  /** More variables for the n-th process, counted from 0, of `node-1`, `worker-1` and so on. */
  readonly envOf?: (name: string, start: number) => Readonly<Record<string, string>>
  readonly restartPause?: Supervisor.SupervisorOptions["restartPause"]
  readonly onLine?: (name: string, line: string) => void
}

export interface LocalCluster {
  readonly nodes: ReadonlyArray<Supervisor.Supervised>
  readonly workers: ReadonlyArray<Supervisor.Supervised>
  /** Data addresses of the nodes when they started. A node that was started again has another one. */
  readonly addresses: ReadonlyArray<string>
  readonly all: ReadonlyArray<Supervisor.Supervised>
}

/** A process is started again and again, but does not become ready. */
export class NotReady extends Data.TaggedError("NotReady")<{ readonly name: string; readonly output: string }> {
  readonly exitCode = exitCode.unavailable
  override get message() {
    return `${this.name} was not ready within ${Duration.format(readyWithin)}; it said:\n${this.output}`
  }
}

/** Above the time a node waits for its database by default (30 s), so that it can say so. */
const readyWithin = Duration.seconds(60)

const whenReady = (child: Supervisor.Supervised) =>
  Effect.timeoutOption(child.ready, readyWithin).pipe(
    Effect.flatMap(Option.match({
      onSome: Effect.succeed,
      onNone: () => Effect.flatMap(child.output, (output) => new NotReady({ name: child.name, output }))
    }))
  )

/** Answers when every process is ready; all stop with the scope. */
export const start = (
  options: LocalClusterOptions
): Effect.Effect<LocalCluster, Supervisor.ChildEnded | NotReady, Scope.Scope> =>
  Effect.gen(function*() {
    const children: Array<Supervisor.Supervised> = []
    const handlers = options.handlers === undefined ? [] : ["--handlers", resolve(options.handlers)]
    const launch = (name: string, command: string, env: Readonly<Record<string, string>>) =>
      Supervisor.start({
        name,
        script: main,
        args: [command, ...handlers],
        env: { ...options.env, ...env },
        ...(options.envOf === undefined ? {} : { envOf: (start: number) => options.envOf!(name, start) }),
        ...(options.restartPause === undefined ? {} : { restartPause: options.restartPause }),
        onLine: (line) => options.onLine?.(name, line)
      }).pipe(Effect.tap((child) => Effect.sync(() => children.push(child))))

    const nodeEnv = {
      ORRERY_DATABASE_URL: Redacted.value(options.databaseUrl),
      ...(options.workerSlots === undefined ? {} : { ORRERY_WORKER_SLOTS: String(options.workerSlots) })
    }
    const nodes = yield* Effect.forEach(numbers(options.nodes), (n) => launch(`node-${n}`, "node", nodeEnv))
    // Each child stops with the scope anyway, but one after the other; this way the workers drain at once, while there
    // are nodes to report to, and then the nodes.
    const stopAll = (some: ReadonlyArray<Supervisor.Supervised>) =>
      Effect.forEach(some, (child) => child.stop, { concurrency: processesMax, discard: true })
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(stopAll(children.filter((child) => !nodes.includes(child))), stopAll(nodes))
    )
    const ready = yield* Effect.forEach(nodes, whenReady, { concurrency: processesMax })
    const addresses = ready.map((each) => each.dataAddress)
    const workerEnv = {
      ORRERY_NODES: addresses.join(","),
      ...(options.slots === undefined ? {} : { ORRERY_SLOTS: String(options.slots) })
    }
    const workers = yield* Effect.forEach(numbers(options.workers ?? 0), (n) =>
      launch(`worker-${n}`, "worker", workerEnv))
    yield* Effect.forEach(workers, whenReady, { concurrency: processesMax, discard: true })
    return { nodes, workers, addresses, all: children }
  })

/** All are waited for, and stopped, at the same time. */
const processesMax = 256

/** 1 to `count`. */
const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, at) => at + 1)
