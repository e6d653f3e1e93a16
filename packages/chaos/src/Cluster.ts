/** The processes under fire: nodes with addresses that stay, workers, and more of either while a scenario runs. */
import * as Supervisor from "@orrery/cli/Supervisor"
import { killAll } from "@orrery/testing/ClusterRig"
import { Data, Duration, Effect, Redacted, type Scope } from "effect"
import { fileURLToPath } from "node:url"
import { type Role, variables } from "./chaosEnv.js"
import type { Links } from "./Links.js"

const program = fileURLToPath(new URL("../../cli/orrery.mjs", import.meta.url))
const handlers = fileURLToPath(new URL("./chaosHandlers.ts", import.meta.url))
const preload = new URL("./preload.mjs", import.meta.url).href

/** Above the time a node waits for its database by default (30 s), so that it can say so. */
const readyWithin = Duration.seconds(60)
const startsAtOnceMax = 16

export interface NodePlace {
  readonly name: string
  readonly dataPort: number
  readonly runnerPort: number
}

export interface ClusterOptions {
  readonly databaseUrl: Redacted.Redacted<string>
  readonly nodes: ReadonlyArray<NodePlace>
  readonly workers: ReadonlyArray<string>
  readonly workerSlots: number
  readonly slots: number
  readonly links: Links
  /** For every process. */
  readonly env: Readonly<Record<string, string>>
  readonly envOf: (name: string) => Readonly<Record<string, string>>
  readonly folder: string
  readonly clockOffset: number
  readonly onLine: (name: string, line: string) => void
}

export interface Cluster {
  readonly nodes: ReadonlyArray<Supervisor.Supervised>
  readonly workers: ReadonlyArray<Supervisor.Supervised>
  /** `host:port` of the data planes, for good. */
  readonly addresses: ReadonlyArray<string>
  /** Of the nodes. */
  readonly places: ReadonlyArray<NodePlace>
  /** More of them, each until the scope of the call closes. Ready when it answers. */
  readonly addNode: (place: NodePlace) => Effect.Effect<Supervisor.Supervised, NotReady, Scope.Scope>
  readonly addWorker: (name: string, role: Role) => Effect.Effect<Supervisor.Supervised, NotReady, Scope.Scope>
  /** Without waiting for it. `firstEnv`: more variables for its first process only. */
  readonly launchNode: Launch<NodePlace>
  readonly launchWorker: Launch<string>
}

export type Launch<Place> = (
  place: Place,
  firstEnv?: Readonly<Record<string, string>>
) => Effect.Effect<Supervisor.Supervised, never, Scope.Scope>

export class NotReady extends Data.TaggedError("NotReady")<{ readonly name: string; readonly output: string }> {
  override get message() {
    return `${this.name} was not ready within ${Duration.format(readyWithin)}; it said:\n${this.output}`
  }
}

/** Answers when all are ready; they stop with the scope. */
export const start = (options: ClusterOptions): Effect.Effect<Cluster, NotReady, Scope.Scope> =>
  Effect.gen(function*() {
    const addresses = options.nodes.map(addressOf)
    const launchNode: Cluster["launchNode"] = (place, firstEnv = {}) =>
      launch(options, place.name, "node", nodeEnv(options, place), firstEnv)
    const launchOf = (name: string, role: Role, firstEnv: Readonly<Record<string, string>> = {}) =>
      launch(options, name, "worker", workerEnv(options, addresses, role), firstEnv)
    const nodes = yield* Effect.forEach(options.nodes, (place) => launchNode(place))
    const workers: Array<Supervisor.Supervised> = []
    // All has been looked at by then.
    yield* Effect.addFinalizer(() => killAll([...workers, ...nodes]))
    yield* Effect.forEach(nodes, whenReady, { concurrency: startsAtOnceMax, discard: true })
    for (const name of options.workers) workers.push(yield* launchOf(name, "worker"))
    yield* Effect.forEach(workers, whenReady, { concurrency: startsAtOnceMax, discard: true })
    return {
      nodes,
      workers,
      addresses,
      places: options.nodes,
      launchNode,
      launchWorker: (name, firstEnv) => launchOf(name, "worker", firstEnv),
      addNode: (place) => Effect.tap(launchNode(place), whenReady),
      addWorker: (name, role) => Effect.tap(launchOf(name, role), whenReady)
    }
  })

export const addressOf = ({ dataPort }: NodePlace): string => `127.0.0.1:${dataPort}`

const whenReady = (child: Supervisor.Supervised): Effect.Effect<void, NotReady> =>
  child.ready.pipe(
    Effect.timeout(readyWithin),
    Effect.catchAll(() => Effect.flatMap(child.output, (output) => new NotReady({ name: child.name, output }))),
    Effect.asVoid
  )

const nodeEnv = (options: ClusterOptions, { dataPort, runnerPort }: NodePlace) => ({
  ORRERY_DATABASE_URL: Redacted.value(options.databaseUrl),
  ORRERY_DATA_PORT: String(dataPort),
  ORRERY_RUNNER_PORT: String(runnerPort),
  ORRERY_WORKER_SLOTS: String(options.workerSlots),
  [variables.slots]: String(options.workerSlots),
  [variables.role]: "node" satisfies Role
})

const workerEnv = (options: ClusterOptions, addresses: ReadonlyArray<string>, role: Role) => ({
  ORRERY_NODES: addresses.join(","),
  ORRERY_SLOTS: String(options.slots),
  [variables.slots]: String(options.slots),
  [variables.role]: role
})

const launch = (
  options: ClusterOptions,
  name: string,
  command: "node" | "worker",
  env: Readonly<Record<string, string>>,
  firstEnv: Readonly<Record<string, string>>
) =>
  Supervisor.start({
    name,
    script: program,
    nodeArgs: ["--import", preload],
    args: [command, "--handlers", handlers],
    env: {
      ...options.env,
      ...env,
      [variables.name]: name,
      [variables.folder]: options.folder,
      [variables.clockOffset]: String(options.clockOffset),
      [variables.routes]: JSON.stringify(options.links.routesOf(name)),
      ...options.envOf(name)
    },
    envOf: (start) => start === 0 ? firstEnv : {},
    onLine: (line) => options.onLine(name, line)
  })
