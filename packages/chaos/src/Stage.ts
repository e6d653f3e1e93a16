/**
 * A cluster under load, on which scenarios play: processes, network, database, clients, and the history of it all. Several
 * may play on one stage, one after the other; `conclude.ts` looks at what became of everything.
 */
import * as RunsClient from "@orrery/api/RunsClient"
import type { Supervised } from "@orrery/cli/Supervisor"
import type { Runs } from "@orrery/core/Runs"
import type { Schedules } from "@orrery/core/schedule/Schedules"
import type { RedisServerFailed } from "@orrery/testing/RedisServer"
import { type Context, Effect, Layer, Redacted, type Scope } from "effect"
import { createWriteStream, mkdirSync } from "node:fs"
import { join } from "node:path"
import * as Audit from "./Audit.js"
import * as Beats from "./Beats.js"
import * as Cluster from "./Cluster.js"
import * as Database from "./Database.js"
import * as HistoryFile from "./HistoryFile.js"
import * as Links from "./Links.js"
import * as Load from "./Load.js"
import { eventually } from "./patience.js"
import type * as Postgres from "./Postgres.js"
import { freePorts } from "./ports.js"
import * as RedisStage from "./RedisStage.js"
import { Random } from "@orrery/testing/Random"
import * as ResourceWatch from "./ResourceWatch.js"
import type { ProxyFailed } from "./TcpProxy.js"

/** What a scenario needs of its stage. */
export interface Setting {
  /** Links that go through proxies. Default: none. */
  readonly links?: ReadonlyArray<Links.LinkKind>
  /** Default 2. */
  readonly workers?: number
  /** Of each worker process. Default 40. */
  readonly slots?: number
  /** Of the worker in each node. Default 8. */
  readonly workerSlots?: number
  readonly env?: Readonly<Record<string, string>>
  /** More for one process. */
  readonly envOf?: (name: string, folder: string) => Readonly<Record<string, string>>
  /** Pause of each producer between two requests, ms. Default 40. */
  readonly pauseMs?: number
  readonly client?: Partial<RunsClient.RunsClientOptions>
  /** A Redis for the nodes and workers. Default: none. */
  readonly redis?: boolean
}

export interface StageOptions extends Setting {
  readonly postgres: Postgres.Postgres
  readonly seed: number
  /** Short, unique among the databases of the server. */
  readonly name: string
  /** Histories and the log of the processes. Exists. */
  readonly folder: string
  /** Times as many runs in each request of the load. Default 1. */
  readonly load?: number
}

export interface Stage {
  readonly seed: number
  readonly folder: string
  readonly random: Random
  readonly postgres: Postgres.Postgres
  readonly database: Postgres.FreshDatabase
  readonly query: Database.Query
  readonly clockOffset: number
  readonly cluster: Cluster.Cluster
  readonly links: Links.Links
  readonly redis: RedisStage.RedisStage | undefined
  readonly load: Load.Load
  readonly client: Context.Context<Runs | Schedules>
  readonly history: HistoryFile.Writer
  /** Another client with connections of its own, until the scope closes. */
  readonly newClient: (
    options?: Partial<RunsClient.RunsClientOptions>
  ) => Effect.Effect<Context.Context<Runs | Schedules>, never, Scope.Scope>
  /** An address for one more node. */
  readonly newPlace: (name: string) => Effect.Effect<Cluster.NodePlace>
  /** The node that owns the only partition of a queue now. */
  readonly ownerOf: (queue: string) => Effect.Effect<Supervised>
}

const nodeNames = ["node-1", "node-2", "node-3"]
const workersDefault = 2
const slotsDefault = 40
const workerSlotsDefault = 8
const pauseMsDefault = 40
/** A node whose client is gone for this long is asked through another: shorter than the 30 s a user has by default. */
const clientDefaults = { callTimeout: "5 seconds", budget: "10 seconds" } as const

export const start = (
  options: StageOptions
): Effect.Effect<Stage, Database.HarnessFailed | ProxyFailed | RedisServerFailed | Cluster.NotReady, Scope.Scope> =>
  Effect.gen(function*() {
    const { folder, postgres, seed } = options
    mkdirSync(folder, { recursive: true })
    const random = new Random(seed)
    const database = yield* postgres.freshDatabase(options.name)
    yield* Audit.install(database.admin)
    const query = yield* Database.open(database.admin)
    const clockOffset = yield* Database.clockOffset(query)
    const newPlace = (name: string) =>
      Effect.map(freePorts(2, Math.random), ([dataPort, runnerPort]): Cluster.NodePlace => ({
        name,
        dataPort: dataPort!,
        runnerPort: runnerPort!
      }))
    const places = yield* Effect.forEach(nodeNames, newPlace)
    const workers = Array.from({ length: options.workers ?? workersDefault }, (_, n) => `worker-${n + 1}`)
    const chance = random.fork()
    const links = yield* Links.make({
      nodes: nodeNames,
      workers,
      destinations: destinationsOf(postgres, places),
      kinds: options.links ?? [],
      random: () => chance.next()
    })
    yield* installRoutes(links)
    const redis = options.redis === true ? yield* RedisStage.start(() => chance.next()) : undefined
    const redisEnv: Readonly<Record<string, string>> = redis === undefined
      ? {}
      : { ORRERY_REDIS_URL: Redacted.value(redis.url) }
    const log = yield* processLog(folder)
    const cluster = yield* Cluster.start({
      databaseUrl: database.nodes,
      nodes: places,
      workers,
      workerSlots: options.workerSlots ?? workerSlotsDefault,
      slots: options.slots ?? slotsDefault,
      links,
      env: { ...redisEnv, ...options.env },
      envOf: (name) => options.envOf?.(name, folder) ?? {},
      folder,
      clockOffset,
      onLine: log
    })
    const history = HistoryFile.open(folder, Links.clientName)
    const newClient: Stage["newClient"] = (more) =>
      Layer.build(RunsClient.layer({ ...clientDefaults, nodes: cluster.addresses, ...more }))
    const client = yield* newClient(options.client)
    yield* Beats.start(client)
    yield* ResourceWatch.start([...cluster.nodes, ...cluster.workers], history)
    const load = yield* Load.start({
      client,
      history,
      random: random.fork(),
      clockOffset,
      pauseMs: options.pauseMs ?? pauseMsDefault,
      times: options.load ?? 1,
      waiting: Effect.map(
        query<{ count: number }>("select count(*)::int as count from orrery.runs"),
        ([row]) => row!.count
      )
    })
    return {
      seed,
      folder,
      random: random.fork(),
      postgres,
      database,
      query,
      clockOffset,
      cluster,
      links,
      redis,
      load,
      client,
      history,
      newClient,
      newPlace,
      ownerOf: ownerOf(query, cluster)
    }
  })

const destinationsOf = (
  { server }: Postgres.Postgres,
  places: ReadonlyArray<Cluster.NodePlace>
): ReadonlyArray<Links.Destination> => [
  { name: "postgres", kind: "postgres", host: server.host, port: server.port },
  ...places.flatMap(({ dataPort, name, runnerPort }): ReadonlyArray<Links.Destination> => [
    { name, kind: "data", host: "127.0.0.1", port: dataPort },
    { name, kind: "runner", host: "127.0.0.1", port: runnerPort }
  ])
]

interface Preload {
  readonly install: (routes: Readonly<Record<string, number>>) => void
  readonly forget: (routes: Readonly<Record<string, number>>) => void
}

/** The clients of the harness go through the proxies as the processes do. */
const installRoutes = (links: Links.Links) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const preload = await import(new URL("./preload.mjs", import.meta.url).href) as Preload
      preload.install(links.routesOf(Links.clientName))
      return preload
    }),
    ({ forget }) => Effect.sync(() => forget(links.routesOf(Links.clientName)))
  )

const ownerOf = (query: Database.Query, cluster: Cluster.Cluster): Stage["ownerOf"] => (queue) =>
  Effect.gen(function*() {
    const find = Effect.gen(function*() {
      const [row] = yield* query<{ owner: string }>("select owner from orrery.partitions where queue = $1", [queue])
      const ids = yield* Effect.forEach(cluster.nodes, (node) => Effect.map(node.lastReady, (ready) => ready?.nodeId))
      return cluster.nodes[ids.indexOf(row?.owner)]
    })
    return (yield* eventually(`queue ${queue} has an owner`, find, (node) => node !== undefined))!
  })

/** What the processes said, to look up what took long. */
const processLog = (folder: string) =>
  Effect.acquireRelease(
    Effect.sync(() => createWriteStream(join(folder, "processes.log"))),
    (stream) => Effect.sync(() => stream.end())
  ).pipe(Effect.map((stream) => (name: string, line: string) => void stream.write(`[${name}] ${line}\n`)))
