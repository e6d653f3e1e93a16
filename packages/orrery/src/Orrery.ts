/**
 * Where runs live and who executes them. The program above does not change:
 *
 *   layerMemory     this process, nothing survives it. For tests and for work that may be lost
 *   layerEmbedded   this machine: PostgreSQL as a child process, its data in a folder
 *   layerNode       a member of a cluster on a given PostgreSQL
 *   layerClient     no member: calls a cluster, executes nothing
 *   layerReader     no member, and calls nobody: reads, follows and awaits runs, by the database and Redis alone
 *
 * All provide `Runs`, which `task.enqueue`, `task.execute` and the others need, and those that execute also `Schedules`.
 *
 * What is shared beside the runs is provided to them, `Layer.provide(Orrery.layerRedisConfig)`: limits for handlers that use a
 * `RateLimiter` or a `ConcurrencyLimiter`, and hints for those who watch queues.
 *
 *   layerRedis, layerRedisConfig   between all processes on a Redis
 *   layerLimits                    limits alone, kept by the cluster itself: for its nodes and clients
 *   layerOneProcess                in this process, for what is no cluster
 */
import * as RunsClient from "@orrery/api/RunsClient"
import * as OrreryNode from "@orrery/cluster/OrreryNode"
import * as Ends from "@orrery/cluster/Ends"
import * as SoloNode from "@orrery/cluster/SoloNode"
import * as SoloSchedules from "@orrery/cluster/SoloSchedules"
import * as StoreRuns from "@orrery/cluster/StoreRuns"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as codedPorts from "@orrery/core/codedPorts"
import * as Handlers from "@orrery/core/Handlers"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import * as Limits from "@orrery/core/Limits"
import * as MemoryEndStore from "@orrery/core/MemoryEndStore"
import * as MemorySignals from "@orrery/core/MemorySignals"
import * as MemoryStore from "@orrery/core/MemoryStore"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import { Runs } from "@orrery/core/Runs"
import * as MemoryScheduleStore from "@orrery/core/schedule/MemoryScheduleStore"
import { Schedules } from "@orrery/core/schedule/Schedules"
import * as Redis from "@orrery/signals-redis/Redis"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import * as PgPools from "@orrery/store-pg/PgPools"
import * as PgProgressStore from "@orrery/store-pg/PgProgressStore"
import * as PgRunReader from "@orrery/store-pg/PgRunReader"
import { Context, Effect, Layer, Option, type Redacted } from "effect"

/** Made with `task.toLayer`; several with `Layer.mergeAll`. */
export type HandlersLayer<E, R> = Layer.Layer<never, E, R | Handlers.Handlers>

interface CodecOption {
  /** What is done to payloads, results and errors before they leave this process: docs/payloads.md. Default: nothing. */
  readonly codec?: PayloadCodec.Codec
}

const filled = <E, R>(
  handlers: HandlersLayer<E, R> | undefined,
  codec: PayloadCodec.Codec | undefined
): Layer.Layer<Handlers.Handlers, E, Exclude<R, Handlers.Handlers>> => {
  const given = codec === undefined
    ? Handlers.layer
    : Layer.merge(Handlers.layer, Layer.succeed(PayloadCodec.PayloadCodec, codec))
  const all = handlers === undefined ? given : Layer.provideMerge(handlers, given)
  if (codec === undefined) return all
  return Layer.map(
    all,
    (context) =>
      Context.add(context, Handlers.Handlers, codedPorts.handlers(codec, Context.get(context, Handlers.Handlers)))
  )
}

/** The ports a program sees, with the codec behind them, and the codec for what it does beside them. */
const coded = (codec: PayloadCodec.Codec | undefined) => <ROut, E, R>(layer: Layer.Layer<ROut, E, R>) =>
  codec === undefined ? layer : Layer.map(layer, (context) => {
    const all = Context.add(context as Context.Context<unknown>, PayloadCodec.PayloadCodec, codec)
    const runs = Context.getOption(all, Runs)
    const schedules = Context.getOption(all, Schedules)
    const withRuns = Option.isNone(runs) ? all : Context.add(all, Runs, codedPorts.runs(codec, runs.value))
    return (Option.isNone(schedules)
      ? withRuns
      : Context.add(withRuns, Schedules, codedPorts.schedules(codec, schedules.value)))
  })

export interface MemoryOptions<E, R> extends SoloNode.SoloOptions, MemoryStore.MemoryStoreOptions, CodecOption {
  readonly handlers?: HandlersLayer<E, R>
  readonly cluster?: Partial<ClusterConfig.Values>
}

/**
 * Not durable: runs are gone with the process. The same actors, order, retries and cancellation as in a cluster.
 * Keeps the newest `historyRunsMax` final runs, default 100,000.
 */
export const layerMemory = <E = never, R = never>(options: MemoryOptions<E, R> = {}) =>
  SoloSchedules.layer().pipe(
    Layer.provide(MemoryScheduleStore.layer),
    Layer.provideMerge(SoloNode.layer(options)),
    Layer.provide([
      filled(options.handlers, options.codec),
      MemoryStore.layerWith(options),
      ClusterConfig.layer(options.cluster)
    ]),
    coded(options.codec)
  )

type NodeOptions<E, R> = Parameters<typeof NodeConfig.layerAll>[0] & CodecOption & {
  readonly handlers?: HandlersLayer<E, R>
}

/** A member of a cluster: owns queues, executes runs, listens for the others. Settings: docs/configuration.md. */
export const layerNode = <E = never, R = never>({ codec, handlers, ...options }: NodeOptions<E, R>) =>
  OrreryNode.layer.pipe(
    Layer.provide([LimitKeeper.joining(filled(handlers, codec)), NodeConfig.layerAll(options)]),
    coded(codec)
  )

/** As `layerNode`, with the settings of the environment (`ORRERY_...`). */
export const layerNodeConfig = <E = never, R = never>(
  options: CodecOption & { readonly handlers?: HandlersLayer<E, R> } = {}
) =>
  OrreryNode.layer.pipe(
    Layer.provide([LimitKeeper.joining(filled(options.handlers, options.codec)), NodeConfig.layerAllConfig]),
    coded(options.codec)
  )

interface EmbeddedOptions<E, R> extends Omit<NodeOptions<E, R>, "databaseUrl"> {
  /** Folder of the database; made when it is missing. One process at a time. */
  readonly dataDir: string
}

/** Durable on one machine: the database is a child process, started and stopped with the layer. */
export const layerEmbedded = <E = never, R = never>({ dataDir, ...options }: EmbeddedOptions<E, R>) =>
  Layer.unwrapScoped(
    Effect.map(EmbeddedPostgres.start({ dataDir }), ({ url }) => layerNode({ ...options, databaseUrl: url }))
  )

/**
 * Fails when the node of this process must not go on, as others may act in its place: the event loop stood still for too long, its
 * peers have given it up, or the database is not the one it was. From then on it starts nothing.
 * To be raced with the program, so that its process ends and is started again; `orrery node` asks for that by code 75.
 */
export const fenced: Effect.Effect<never, OrreryNode.NodeFenced, OrreryNode.OrreryNode> = Effect.flatMap(
  OrreryNode.OrreryNode,
  ({ fatal }) => fatal
)

/** On a given Redis. Never waits for it. */
export const layerRedis = Redis.layer

/** On the Redis of `ORRERY_REDIS_URL`. Without one: limits as `layerLimits`, and watchers of queues poll. */
export const layerRedisConfig = Redis.layerConfig

/**
 * Limits without Redis. Of a node or a client (`layerNode`, `layerClient`): those of its cluster, the same for tasks that name them
 * and for handlers that use them; in any other process, its own.
 */
export const layerLimits = LimitKeeper.layer

/** Limits and hints within this process, for `layerMemory` and `layerEmbedded`. */
export const layerOneProcess = Layer.mergeAll(Limits.layerMemory, MemorySignals.layer, MemoryEndStore.layer)

/** Calls a cluster through any of its nodes. */
export const layerClient = ({ codec, ...options }: Parameters<typeof RunsClient.layer>[0] & CodecOption) =>
  RunsClient.layer(options).pipe(coded(codec))

interface ReaderOptions extends CodecOption {
  /** That of the cluster; a user that may read is enough. */
  readonly databaseUrl: Redacted.Redacted
  /** Default 2. */
  readonly readConnections?: number
}

/**
 * Reads, follows and awaits runs without a node, by the database, and by Redis where one is provided; without, it looks once a
 * second. Calls that need an owner fail with `ClusterUnavailable`; to enqueue there is `enqueueInTransaction`.
 */
export const layerReader = ({ codec, databaseUrl, readConnections = 2 }: ReaderOptions) =>
  StoreRuns.layer.pipe(
    Layer.provide(Ends.layer),
    Layer.provide(Layer.merge(PgRunReader.layer, PgProgressStore.layer)),
    Layer.provide(PgPools.layer({ url: databaseUrl, readConnections })),
    coded(codec)
  )
