/**
 * Settings that must be equal on every node. The first node of a cluster records them in `orrery.cluster_settings`; a
 * node whose values differ refuses to start. Settings of one process: `NodeConfig.ts`.
 */
import { Context, Effect, Layer } from "effect"
import { payloadBytesMaxDefault } from "./RunRequest.js"
import * as QueuePartitions from "./QueuePartitions.js"
import * as Setting from "./Setting.js"

/** 60 shards: even over 2 to 6 nodes, and few enough that taking all of one node takes one round trip. */
export const shardsPerGroupDefault = 60
/** 1 min: a run one step less urgent lets runs pass that arrive up to a minute later. */
export const agingStepMsDefault = 60_000
/** 10 s of silence: long enough for a worker's slow garbage collection, the longest a frozen worker keeps its runs. */
export const leaseMsDefault = 10_000
/** 1 s: a worker that reconnects within it keeps its attempts; a dead one's start again after it. */
export const lostWorkerGraceMsDefault = 1_000
/** 2 s: workers of a dead node have found the new owner well before; what nobody claimed starts again after it. */
export const adoptionGraceMsDefault = 2_000
/** 3 workers may die of a run before it counts as poison. */
export const maxCrashesDefault = 3
/** 6 s: three missed refreshes. */
export const lockExpirationMsDefault = 6_000
/** 2 s: shorter gives false alarms on a busy machine, because it is the deadline of each lock operation too. */
export const lockRefreshMsDefault = 2_000
/** 3.5 s: one and a half refreshes. PostgreSQL drops the session, and so the locks, of a frozen node after it. */
export const idleSessionTimeoutMsDefault = 3_500
/** 0.5 s: a dead node's shards are taken within one poll of its being noticed. */
export const assignmentPollMsDefault = 500

/** The session must outlive a late refresh by at least this. */
const idleSessionMarginMs = 500

export const settings = {
  shardsPerGroup: Setting.integer({
    env: "SHARDS_PER_GROUP",
    default: shardsPerGroupDefault,
    unit: "shards",
    min: 1,
    max: 10_000,
    doc: "Number of hash buckets that queue partitions are spread over, and that move between nodes. "
      + "Fixed for the life of a cluster. At least a few times the number of nodes, or the spread is uneven."
  }),
  queuePartitions: Setting.text({
    env: "QUEUE_PARTITIONS",
    default: "",
    unit: "list",
    accepts: QueuePartitions.accepts,
    doc:
      "Queues with more than one partition. Each partition has an owner and an order of its own, so a hot queue can use "
      + "several nodes; order and limits are then kept per partition. Empty: every queue has one.",
    check: (value) => QueuePartitions.parse(value) !== undefined
  }),
  agingStepMs: Setting.integer({
    env: "AGING_STEP_MS",
    default: agingStepMsDefault,
    unit: "ms",
    min: 0,
    max: 24 * 3_600_000,
    doc: "How far one step of priority moves a run in line: a run goes before all that are one step less urgent and "
      + "became due up to this much earlier. The longest extra wait of a run is 9 steps. "
      + "0 ignores priority; a large value comes close to strict priority."
  }),
  leaseMs: Setting.integer({
    env: "LEASE_MS",
    default: leaseMsDefault,
    unit: "ms",
    min: 1_000,
    max: 3_600_000,
    doc: "A worker that is connected but silent for this long loses its attempts; they start again elsewhere. "
      + "Smaller recovers sooner from a frozen worker, and takes work from one that only pauses."
  }),
  lostWorkerGraceMs: Setting.integer({
    env: "LOST_WORKER_GRACE_MS",
    default: lostWorkerGraceMsDefault,
    unit: "ms",
    min: 0,
    max: 600_000,
    doc: "A worker whose connection closed without goodbye may come back within this time and keep its attempts. "
      + "It bounds how fast a killed worker's attempts start again. At most the lease."
  }),
  adoptionGraceMs: Setting.integer({
    env: "ADOPTION_GRACE_MS",
    default: adoptionGraceMsDefault,
    unit: "ms",
    min: 0,
    max: 600_000,
    doc: "After a node took a partition over, workers may claim the attempts they still run for this long. "
      + "Smaller restarts sooner what nobody runs; too small runs twice what a slow worker still runs."
  }),
  maxCrashes: Setting.integer({
    env: "MAX_CRASHES",
    default: maxCrashesDefault,
    unit: "crashes",
    min: 1,
    max: 1_000,
    doc:
      "A run during which this many workers died fails for good as a poison run, so that it cannot take the fleet down."
  }),
  payloadBytesMax: Setting.integer({
    env: "PAYLOAD_BYTES_MAX",
    default: payloadBytesMaxDefault,
    unit: "bytes",
    min: 1_024,
    max: 16 * 1024 * 1024,
    doc: "Largest encoded payload of a run. A larger one is refused with PayloadTooLarge. "
      + "Put bulk elsewhere and pass a reference: payloads pass through memory on the way to a worker."
  }),
  lockExpirationMs: Setting.integer({
    env: "LOCK_EXPIRATION_MS",
    default: lockExpirationMsDefault,
    unit: "ms",
    min: 1_000,
    max: 600_000,
    doc: "Shard locks that were not refreshed for this long are void, and a node that could not refresh for this long "
      + "exits. At least twice the refresh interval."
  }),
  lockRefreshMs: Setting.integer({
    env: "LOCK_REFRESH_MS",
    default: lockRefreshMsDefault,
    unit: "ms",
    min: 250,
    max: 60_000,
    doc: "Pause between refreshes of shard locks, and deadline of each lock operation. "
      + "Below about 2000 a busy machine gives false alarms."
  }),
  idleSessionTimeoutMs: Setting.integer({
    env: "IDLE_SESSION_TIMEOUT_MS",
    default: idleSessionTimeoutMsDefault,
    unit: "ms",
    min: 500,
    max: 600_000,
    doc: "PostgreSQL ends a lock session that was silent for this long, which frees a frozen node's shards. "
      + `Above the refresh interval by at least ${idleSessionMarginMs}, and below the lock expiration.`
  }),
  assignmentPollMs: Setting.integer({
    env: "ASSIGNMENT_POLL_MS",
    default: assignmentPollMsDefault,
    unit: "ms",
    min: 50,
    max: 60_000,
    doc:
      "How often a node looks which nodes are alive and which shards it should hold; a node alone does so with each refresh. "
      + "It looks at once when it finds a peer dead, or is told by another; this is for what nobody tells it. Each look is one "
      + "small query."
  })
}

export type Values = Setting.Values<typeof settings>

export class ClusterConfig extends Context.Tag("@orrery/core/ClusterConfig")<ClusterConfig, Values>() {}

/** Problems of values that are right one by one. */
export const together = (config: Values): ReadonlyArray<string> => {
  const problems: Array<string> = []
  const expect = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem)
  }
  expect(
    config.lockExpirationMs >= 2 * config.lockRefreshMs,
    `ORRERY_LOCK_EXPIRATION_MS (${config.lockExpirationMs}) must be at least twice ORRERY_LOCK_REFRESH_MS (${config.lockRefreshMs})`
  )
  expect(
    config.idleSessionTimeoutMs >= config.lockRefreshMs + idleSessionMarginMs,
    `ORRERY_IDLE_SESSION_TIMEOUT_MS (${config.idleSessionTimeoutMs}) must be at least ${idleSessionMarginMs} above ORRERY_LOCK_REFRESH_MS (${config.lockRefreshMs})`
  )
  expect(
    config.idleSessionTimeoutMs < config.lockExpirationMs,
    `ORRERY_IDLE_SESSION_TIMEOUT_MS (${config.idleSessionTimeoutMs}) must be below ORRERY_LOCK_EXPIRATION_MS (${config.lockExpirationMs})`
  )
  expect(
    config.lostWorkerGraceMs <= config.leaseMs,
    `ORRERY_LOST_WORKER_GRACE_MS (${config.lostWorkerGraceMs}) must be at most ORRERY_LEASE_MS (${config.leaseMs})`
  )
  return problems
}

export const gather = (options: Partial<Values> = {}): Setting.Gathered<typeof settings> =>
  Setting.check(settings, options, together)

export const read: Effect.Effect<Setting.Gathered<typeof settings>> = Setting.read(settings, together)

/** Values given in code; what is left out gets its default. */
export const layer = (options?: Partial<Values>): Layer.Layer<ClusterConfig, Setting.ConfigInvalid> =>
  Layer.effect(ClusterConfig, Effect.suspend(() => Setting.orFail(gather(options))))

/** ORRERY_SHARDS_PER_GROUP and so on, see docs/configuration.md. */
export const layerConfig: Layer.Layer<ClusterConfig, Setting.ConfigInvalid> = Layer.effect(
  ClusterConfig,
  Effect.flatMap(read, Setting.orFail)
)
