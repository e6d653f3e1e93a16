/** Settings of one node process. They may differ between nodes. Settings of the whole cluster: `ClusterConfig.ts`. */
import { Context, Effect, Layer } from "effect"
import * as Cluster from "./ClusterConfig.js"
import * as Retention from "./Retention.js"
import * as Setting from "./Setting.js"

export const hostDefault = "127.0.0.1"
/** 0: the operating system picks a free port; the ready line tells which. */
export const portDefault = 0
/** 8 attempts at a time in the node itself: enough for work that waits, not so many that the node's own loop starves. */
export const workerSlotsDefault = 8
/** 2,000 runs per line in memory: a page is read every thousand runs or so. */
export const windowRunsMaxDefault = 2_000
/** 8 MiB of payload per line in memory. */
export const windowBytesMaxDefault = 8 * 1024 * 1024
/** 2 commits at a time: the next batch gathers while one waits for the disk. */
export const journalConnectionsDefault = 2
export const readConnectionsDefault = 4
/** 64 MiB of unwritten transitions; beyond, `Overloaded`. */
export const journalPendingBytesMaxDefault = 64 * 1024 * 1024
/** 2,000 rows in one statement: larger ones gain nothing and hold locks longer. */
export const journalBatchRowsMaxDefault = 2_000
export const peerPingIntervalMsDefault = 250
export const peerPingTimeoutMsDefault = 400
/** Two misses in a row: one slow answer is no death. */
export const peerMissesMaxDefault = 2
/** 2.5 s: before PostgreSQL gives this node's locks away (idle session timeout, 3.5 s). */
export const eventLoopLagMaxMsDefault = 2_500
/** 1 min without work or calls, then a partition leaves memory. */
export const passivateAfterMsDefault = 60_000
export const shutdownTimeoutMsDefault = 10_000
export const startBudgetMsDefault = 30_000
/** Successes for a week; what needs to be looked into for a month. */
export const retentionDefault = Object.entries(Retention.retentionDefault).map((each) => each.join("=")).join(",")
export const newTimelineDefault = "refuse"
/** 12,000: the 10,000 workers a node serves at most, and room for clients and nodes. */
export const connectionsMaxDefault = 12_000
/** 90 % of the heap limit: garbage that is still to be collected counts too. */
export const heapPercentMaxDefault = 90

const hourMs = 3_600_000
const loopback = /^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|localhost)$/

export const isLoopback = (host: string): boolean => loopback.test(host)

export const settings = {
  databaseUrl: Setting.secret({
    env: "DATABASE_URL",
    fallbackEnv: "DATABASE_URL",
    unit: "URL",
    accepts: "a URL like postgres://user:password@host:5432/database",
    doc: "The PostgreSQL database. Secret: give it by the environment, not on a command line. "
      + "It must not be a pooler in transaction mode: shard locks need a session of their own.",
    check: (value) => /^postgres(ql)?:\/\/\S+$/.test(value) && URL.canParse(value)
  }),
  host: Setting.text({
    env: "HOST",
    default: hostDefault,
    unit: "address",
    accepts: "a loopback address (127.0.0.1, ::1, localhost): "
      + "nodes do not encrypt or authenticate their traffic yet, so other addresses are refused until TLS exists",
    doc: "Where the node listens for other nodes, workers and clients. Only loopback until TLS exists.",
    check: isLoopback
  }),
  runnerPort: Setting.integer({
    env: "RUNNER_PORT",
    default: portDefault,
    unit: "port",
    min: 0,
    max: 65_535,
    doc: "Where other nodes reach this one. 0 takes a free port, which is told in the ready line."
  }),
  dataPort: Setting.integer({
    env: "DATA_PORT",
    default: portDefault,
    unit: "port",
    min: 0,
    max: 65_535,
    doc: "Where workers and clients reach this node. 0 takes a free port, which is told in the ready line."
  }),
  workerSlots: Setting.integer({
    env: "WORKER_SLOTS",
    default: workerSlotsDefault,
    unit: "attempts",
    min: 0,
    max: 100_000,
    doc: "Attempts the node's own worker runs at a time. 0: no worker in this node. Handlers share the node's event "
      + "loop; put work that computes for long into separate workers."
  }),
  windowRunsMax: Setting.integer({
    env: "WINDOW_RUNS_MAX",
    default: windowRunsMaxDefault,
    unit: "runs",
    min: 10,
    max: 1_000_000,
    doc: "Waiting runs held in memory per line (task of a partition), up to twice that between two evictions. "
      + "The rest is read from the database in pages."
  }),
  windowBytesMax: Setting.integer({
    env: "WINDOW_BYTES_MAX",
    default: windowBytesMaxDefault,
    unit: "bytes",
    min: 65_536,
    max: 1024 * 1024 * 1024,
    doc: "Payload held in memory per line. Whichever bound is reached first counts."
  }),
  connectionsMax: Setting.integer({
    env: "CONNECTIONS_MAX",
    default: connectionsMaxDefault,
    unit: "connections",
    min: 10,
    max: 1_000_000,
    doc: "Connections to the data port at a time: workers, clients and other nodes. One more is told so and closed. "
      + "The process needs as many file descriptors."
  }),
  heapPercentMax: Setting.integer({
    env: "HEAP_PERCENT_MAX",
    default: heapPercentMaxDefault,
    unit: "percent",
    min: 10,
    max: 100,
    doc: "Above this part of the heap limit (`--max-old-space-size`) enqueue is refused with Overloaded; what is there "
      + "goes on. Lower leaves more room for handlers that run in the node."
  }),
  journalConnections: Setting.integer({
    env: "JOURNAL_CONNECTIONS",
    default: journalConnectionsDefault,
    unit: "connections",
    min: 1,
    max: 64,
    doc: "Commits under way at a time. More helps only while the database is far away: batches grow by themselves."
  }),
  readConnections: Setting.integer({
    env: "READ_CONNECTIONS",
    default: readConnectionsDefault,
    unit: "connections",
    min: 1,
    max: 256,
    doc: "Connections for windows, lists and single runs."
  }),
  journalPendingBytesMax: Setting.integer({
    env: "JOURNAL_PENDING_BYTES_MAX",
    default: journalPendingBytesMaxDefault,
    unit: "bytes",
    min: 1024 * 1024,
    max: 4 * 1024 * 1024 * 1024,
    doc: "Unwritten changes a node holds; beyond, enqueue is refused with Overloaded. Bounds memory when the database "
      + "is slower than the callers."
  }),
  journalBatchRowsMax: Setting.integer({
    env: "JOURNAL_BATCH_ROWS_MAX",
    default: journalBatchRowsMaxDefault,
    unit: "rows",
    min: 1,
    max: 20_000,
    doc: "Most changes in one commit."
  }),
  peerPingIntervalMs: Setting.integer({
    env: "PEER_PING_INTERVAL_MS",
    default: peerPingIntervalMsDefault,
    unit: "ms",
    min: 50,
    max: 60_000,
    doc: "Pause between pings of each other node. Part of the time until a dead node is noticed."
  }),
  peerPingTimeoutMs: Setting.integer({
    env: "PEER_PING_TIMEOUT_MS",
    default: peerPingTimeoutMsDefault,
    unit: "ms",
    min: 50,
    max: 60_000,
    doc: "A ping without an answer for this long is a miss. It is stretched by this node's own event-loop lag."
  }),
  peerMissesMax: Setting.integer({
    env: "PEER_MISSES_MAX",
    default: peerMissesMaxDefault,
    unit: "misses",
    min: 1,
    max: 100,
    doc: "Misses in a row after which a peer is marked unhealthy and its queues are taken over. "
      + "1 notices sooner and is easily wrong."
  }),
  eventLoopLagMaxMs: Setting.integer({
    env: "EVENT_LOOP_LAG_MAX_MS",
    default: eventLoopLagMaxMsDefault,
    unit: "ms",
    min: 100,
    max: 600_000,
    doc: "A node whose own loop stood still for longer stops owning queues and exits with code 75, to be started anew. "
      + "Below ORRERY_IDLE_SESSION_TIMEOUT_MS: it must step down before others may step in."
  }),
  passivateAfterMs: Setting.integer({
    env: "PASSIVATE_AFTER_MS",
    default: passivateAfterMsDefault,
    unit: "ms",
    min: 1_000,
    max: 24 * hourMs,
    doc: "A partition without runs and calls for this long leaves memory. The next call brings it back."
  }),
  stateDir: Setting.text({
    env: "STATE_DIR",
    default: "",
    unit: "folder",
    accepts: "the path of a folder that may be written, or empty",
    doc: "Where the node remembers how far its database had come, so that an older one (a restored backup) is noticed "
      + "even when all nodes were down. Empty: nothing is kept. Nodes of one cluster may share it.",
    check: (value) => !value.includes("\0")
  }),
  newTimeline: Setting.text({
    env: "NEW_TIMELINE",
    default: newTimelineDefault,
    unit: "policy",
    accepts: "refuse or accept",
    doc: "What a node does when the database has a new timeline: a standby was promoted, or a backup was recovered. "
      + "`refuse`: it does not run until `orrery migrate --accept-restore`. `accept`: it goes on; right where standbys are "
      + "synchronous, else what they had not received is lost without a word.",
    check: (value) => value === "refuse" || value === "accept"
  }) as Setting.Setting<"refuse" | "accept">,
  shutdownTimeoutMs: Setting.integer({
    env: "SHUTDOWN_TIMEOUT_MS",
    default: shutdownTimeoutMsDefault,
    unit: "ms",
    min: 0,
    max: hourMs,
    doc:
      "After SIGTERM attempts may end by themselves for this long; then they are interrupted and start again elsewhere, "
      + "uncounted. The process is gone at most 2 s later."
  }),
  retention: Setting.text({
    env: "RETENTION",
    default: retentionDefault,
    unit: "list",
    accepts: Retention.accepts,
    doc:
      "How long final runs are kept, by how they ended, where nothing else is said of their queue. Holds for runs that end "
      + "from now on. Longer costs disk, and a little per commit for each partition kept. Give all nodes the same.",
    check: (value) => Retention.parse(value) !== undefined
  }),
  startBudgetMs: Setting.integer({
    env: "START_BUDGET_MS",
    default: startBudgetMsDefault,
    unit: "ms",
    min: 0,
    max: hourMs,
    doc: "How long an unreachable database is tried at start; then the process exits with code 69."
  })
}

export type Values = Setting.Values<typeof settings>
export type Options = Partial<Values> & Pick<Values, "databaseUrl">

export class NodeConfig extends Context.Tag("@orrery/core/NodeConfig")<NodeConfig, Values>() {}

const together = (config: Values): ReadonlyArray<string> =>
  config.runnerPort !== 0 && config.runnerPort === config.dataPort
    ? [`ORRERY_RUNNER_PORT and ORRERY_DATA_PORT are both ${config.dataPort}; they must differ`]
    : []

/** Problems between the two records. */
export const togetherWithCluster = (node: Values, cluster: Cluster.Values): ReadonlyArray<string> =>
  node.eventLoopLagMaxMs < cluster.idleSessionTimeoutMs
    ? []
    : [
      `ORRERY_EVENT_LOOP_LAG_MAX_MS (${node.eventLoopLagMaxMs}) must be below ORRERY_IDLE_SESSION_TIMEOUT_MS (${cluster.idleSessionTimeoutMs})`
    ]

/** Values given in code; what is left out gets its default. */
export const layer = (options: Options): Layer.Layer<NodeConfig, Setting.ConfigInvalid> =>
  Layer.effect(NodeConfig, Effect.suspend(() => Setting.orFail(Setting.check(settings, options, together))))

/** ORRERY_DATABASE_URL and so on, see docs/configuration.md. */
export const layerConfig: Layer.Layer<NodeConfig, Setting.ConfigInvalid> = Layer.effect(
  NodeConfig,
  Effect.flatMap(Setting.read(settings, together), Setting.orFail)
)

const both = (
  cluster: Setting.Gathered<typeof Cluster.settings>,
  node: Setting.Gathered<typeof settings>
): Layer.Layer<NodeConfig | Cluster.ClusterConfig, Setting.ConfigInvalid> => {
  const each = [...cluster.problems, ...node.problems]
  const problems = each.length > 0 ? each : togetherWithCluster(node.values, cluster.values)
  return problems.length > 0
    ? Layer.fail(new Setting.ConfigInvalid({ problems }))
    : Layer.merge(Layer.succeed(NodeConfig, node.values), Layer.succeed(Cluster.ClusterConfig, cluster.values))
}

/** Both records, checked together: one failure lists everything. What a node is started with. */
export const layerAllConfig: Layer.Layer<NodeConfig | Cluster.ClusterConfig, Setting.ConfigInvalid> = Layer
  .unwrapEffect(
    Effect.zipWith(Cluster.read, Setting.read(settings, together), both)
  )

export const layerAll = (
  options: Options & { readonly cluster?: Partial<Cluster.Values> }
): Layer.Layer<NodeConfig | Cluster.ClusterConfig, Setting.ConfigInvalid> =>
  Layer.suspend(() => both(Cluster.gather(options.cluster), Setting.check(settings, options, together)))
