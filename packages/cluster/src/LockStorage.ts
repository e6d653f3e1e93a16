/**
 * @effect/cluster's `RunnerStorage` on PostgreSQL, through a pool of its own, with what the node learns from it.
 *
 * Who holds a shard is an advisory lock of one session. Its `idle_session_timeout` is a lease kept by the server: a
 * node that stands still (SIGSTOP, a blocked loop) stops refreshing, PostgreSQL ends its session, and the locks are
 * free. `query_timeout` below the refresh interval keeps a dead socket from holding the refresh for good. Peers that have
 * found a node silent do not wait for that: they end its sessions (`endSessions`).
 *
 * The locks decide only who tries; the epoch fence decides who may write (decision 0004).
 *
 * Sharding asks who is there twice a second. A node alone passes that on only as often as it refreshes its locks, for it has
 * nobody to take anything from: an idle one would otherwise be kept busy by it. Who joins pings those it finds, and a
 * node that is pinged looks at once (`lookIfAlone`).
 */
import {
  type ClusterError,
  type Runner,
  type RunnerAddress,
  RunnerStorage,
  type ShardId,
  ShardingConfig,
  SqlRunnerStorage
} from "@effect/cluster"
import { SqlClient } from "@effect/sql"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { Context, Duration, Effect, Layer, Schedule } from "effect"
import { lockSessionsOf } from "./LockPool.js"
import { NodeIdentity } from "./NodeIdentity.js"

export interface KnownRunner {
  /** `host:port` of the runner socket. */
  readonly address: string
  readonly runner: Runner.Runner
  readonly healthy: boolean
}

export class LockStorage extends Context.Tag("@orrery/cluster/LockStorage")<LockStorage, {
  /** Runners with a fresh heartbeat, as of the last poll. */
  readonly runners: () => ReadonlyArray<KnownRunner>
  /** Monotonic ms since the database was last asked about the locks and confirmed them. */
  readonly confirmedMsAgo: () => number
  /** Calls back when shards were acquired. Answers how to stop. */
  readonly onAcquired: (callback: () => void) => () => void
  readonly onRunners: (callback: () => void) => () => void
  /** The members may have changed: this node looks now, and not at its next poll. */
  readonly look: () => void
  readonly isLeaving: () => boolean
  /** Another node is there to take over what this one lets go of. */
  readonly hasOthers: () => boolean
  /** Completes when it is told to leave. */
  readonly leaving: Effect.Effect<void>
  readonly setHealth: (address: RunnerAddress.RunnerAddress, healthy: boolean) => Effect.Effect<void>
  /** Somebody has called: a node that knows of no other looks who it may be. */
  readonly lookIfAlone: () => void
  /** Has the server end the lock sessions of a node, which frees its shards at once. */
  readonly endSessions: (nodeId: string) => Effect.Effect<void>
  /** From now on Sharding, on this node only, sees it as unhealthy and lets go of its shards. */
  readonly leave: () => void
  /** Shards whose locks this node has, as of the last answer of the database. */
  readonly heldCount: () => number
  readonly holds: (shard: ShardId.ShardId) => boolean
  /** Since when without a break, monotonic ms, not too early: no other node has had it from then on. */
  readonly heldSince: (shard: ShardId.ShardId) => number | undefined
}>() {}

/** Nodes that start at once race to create the tables; the losers find them made: 100 ms apart, 50 times. */
const createRetry = Schedule.spaced("100 millis").pipe(Schedule.intersect(Schedule.recurs(50)))

const peerTimeout = "2 seconds"
/** The library gives `getRunners` 5 s. */
const pollWaitMsMax = 2_000
/**
 * The library tries for locks once a second. Those that another node is just letting go of, or that the server has not yet freed
 * of a session that broke, are tried for again within one try: in all so often, and so often without getting any where some were got.
 */
const acquirePause = "25 millis"
const acquireTriesMax = 20
const acquireIdleTriesMax = 4

/** The part of the time between two polls of the members in which a hint brings the next one forward, ms. */
export const pollWaitMs = ({ assignmentPollMs }: ClusterConfig["Type"]): number =>
  Math.min(assignmentPollMs, pollWaitMsMax)

/** A node that leaves lets go of all its shards at once; of those whose entities have ended before the others, after this. */
const releaseWait = "200 millis"

type Released = Effect.Effect<void, ClusterError.PersistenceError>

const keyOf = (address: RunnerAddress.RunnerAddress) => `${address.host}:${address.port}`

/** Both views of one storage: what Sharding needs, and what the node watches. */
export const layer: Layer.Layer<
  LockStorage | RunnerStorage.RunnerStorage,
  never,
  SqlClient.SqlClient | ShardingConfig.ShardingConfig | ClusterConfig | NodeIdentity
> = Layer.effectContext(
  Effect.gen(function*() {
    const storage = yield* RunnerStorage.RunnerStorage
    const sql = yield* SqlClient.SqlClient
    const self = yield* NodeIdentity
    const waitMs = pollWaitMs(yield* ClusterConfig)
    const refreshMs = Duration.toMillis((yield* ShardingConfig.ShardingConfig).shardLockRefreshInterval)
    const aloneForMs = Math.max(waitMs, Math.min(refreshMs, pollWaitMsMax))
    const leaving = yield* Effect.makeLatch(false)
    const allReleased = yield* Effect.makeLatch(false)
    const hint = yield* Effect.makeLatch(true)
    const look = (): void => void hint.unsafeOpen()
    const held = new Map<string, number>()
    /** Being let go of, or let go of since they were acquired last. */
    const letGo = new Set<string>()
    let isLeaving = false
    let hasJoined = false
    let hasLeft = false
    /** The last with a healthy runner in it. */
    let lastTold: Effect.Effect.Success<typeof storage.getRunners> = []
    let runners: ReadonlyArray<KnownRunner> = []
    let confirmedAt = performance.now()
    const acquiredCallbacks = new Set<() => void>()
    const runnersCallbacks = new Set<() => void>()
    /** What is true when the answer is made may be long past when it is read: the time of the question counts. */
    const confirmedBy = <A, E>(ask: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        const askedAt = performance.now()
        return Effect.tap(ask, () => {
          confirmedAt = Math.max(confirmedAt, askedAt)
        })
      })
    const isAlone = () => runners.length === 1 && runners[0]!.healthy && runners[0]!.address === self.runnerAddress
    const poll = Effect.suspend(() => Effect.sleep(isAlone() ? aloneForMs : waitMs))
    const hinted = Effect.raceFirst(hint.await, poll).pipe(Effect.zipRight(hint.close))
    const releaseAll = (address: RunnerAddress.RunnerAddress) =>
      Effect.tap(storage.releaseAll(address), () => {
        held.clear()
        allReleased.unsafeOpen()
      })
    /** May go: a shard whose entities have ended. One statement for all, or two for each of those that wait too long. */
    const mayGo = new Set<string>()
    const releaseWithAll = (address: RunnerAddress.RunnerAddress, shard: ShardId.ShardId, one: Released) =>
      Effect.suspend((): Released => {
        mayGo.add(shard.toString())
        for (const each of held.keys()) {
          if (!mayGo.has(each)) return Effect.raceFirst(allReleased.await, Effect.delay(one, releaseWait))
        }
        return releaseAll(address)
      })
    const watched = RunnerStorage.RunnerStorage.of({
      ...storage,
      register: (runner, healthy) =>
        Effect.gen(function*() {
          // Where there are others, one of them has to reach it first (`Admission`).
          const known = hasJoined ? [] : yield* storage.getRunners
          const hasOthers = known.some(([each, isHealthy]) => isHealthy && keyOf(each.address) !== self.runnerAddress)
          const machineId = yield* storage.register(runner, healthy && !hasOthers)
          hasJoined = true
          look()
          return machineId
        }),
      unregister: (address) =>
        Effect.suspend(() => {
          hasLeft = true
          return storage.unregister(address)
        }),
      acquire: (address, shards) =>
        Effect.tap(confirmedBy(acquireAll(storage, address, shards)), (acquired: ReadonlyArray<ShardId.ShardId>) => {
          const now = performance.now()
          for (const shard of acquired) {
            letGo.delete(shard.toString())
            if (!held.has(shard.toString())) held.set(shard.toString(), now)
          }
          if (acquired.length > 0) { for (const callback of acquiredCallbacks) callback() }
        }),
      refresh: (address, shards) => {
        // It would lock them anew, and keep them from who shall have them.
        const own = [...shards].filter((shard) => !letGo.has(shard.toString()))
        return Effect.tap(confirmedBy(storage.refresh(address, own)), (refreshed) => {
          const kept = new Set(refreshed.map(String))
          for (const shard of shards) if (!kept.has(shard.toString())) held.delete(shard.toString())
        })
      },
      release: (address, shard) => {
        const one = Effect.suspend(() => {
          letGo.add(shard.toString())
          return Effect.tap(storage.release(address, shard), () => void held.delete(shard.toString()))
        })
        return isLeaving ? releaseWithAll(address, shard, one) : one
      },
      releaseAll,
      getRunners: Effect.map(Effect.zipRight(hinted, storage.getRunners), (list) => {
        const next = list.map(([runner, healthy]) => ({ address: keyOf(runner.address), runner, healthy }))
        const changed = signature(next) !== signature(runners)
        runners = next
        if (changed) { for (const callback of runnersCallbacks) callback() }
        if (list.some(([, healthy]) => healthy)) lastTold = list
        // The row of this node goes before its actors do. Told that nobody is left, Sharding would ask again at once, for ever.
        else if (hasLeft) return lastTold
        if (!isLeaving) return list
        return list.map(([runner, healthy]) =>
          [runner, healthy && keyOf(runner.address) !== self.runnerAddress] as const
        )
      })
    })
    const subscribe = (set: Set<() => void>) => (callback: () => void) => {
      set.add(callback)
      return () => {
        set.delete(callback)
      }
    }
    return Context.make(RunnerStorage.RunnerStorage, watched).pipe(
      Context.add(
        LockStorage,
        LockStorage.of({
          runners: () => runners,
          confirmedMsAgo: () => performance.now() - confirmedAt,
          onAcquired: subscribe(acquiredCallbacks),
          onRunners: subscribe(runnersCallbacks),
          setHealth: (address, healthy) =>
            watched.setRunnerHealth(address, healthy).pipe(
              Effect.tap(look),
              Effect.timeout(peerTimeout),
              Effect.catchAllCause((cause) => Effect.logWarning("could not record the health of a peer", cause))
            ),
          lookIfAlone: () => {
            if (isAlone()) look()
          },
          endSessions: (nodeId) =>
            sql`select pg_terminate_backend(pid) from pg_stat_activity
              where application_name = ${lockSessionsOf(nodeId)} and datname = current_database()`.pipe(
              Effect.timeout(peerTimeout),
              Effect.catchAllCause((cause) =>
                Effect.logWarning(
                  "could not end the lock sessions of a peer; the server ends them by itself later",
                  cause
                )
              )
            ),
          look,
          isLeaving: () => isLeaving,
          hasOthers: () => runners.some((each) => each.healthy && each.address !== self.runnerAddress),
          leaving: leaving.await,
          leave: () => {
            isLeaving = true
            leaving.unsafeOpen()
            look()
          },
          heldCount: () => held.size,
          holds: (shard) => held.has(shard.toString()),
          heldSince: (shard) => held.get(shard.toString())
        })
      )
    )
  })
).pipe(Layer.provide(Layer.orDie(Layer.retry(SqlRunnerStorage.layer, createRetry))))

const acquireAll = (
  storage: RunnerStorage.RunnerStorage["Type"],
  address: RunnerAddress.RunnerAddress,
  shards: Iterable<ShardId.ShardId>
) => {
  const wanted = [...shards]
  const names = new Set(wanted.map(String))
  const attempt = (tries: number, before: number, idle: number): ReturnType<typeof storage.acquire> =>
    Effect.flatMap(storage.acquire(address, wanted), (acquired) => {
      // Told are all that this node has. Sharding would take those that it is just letting go of for its own again.
      const asked = acquired.filter((shard) => names.has(shard.toString()))
      const count = asked.length
      const idleTries = count > 0 && count === before ? idle + 1 : 0
      const isOver = count >= names.size || idleTries >= acquireIdleTriesMax || tries >= acquireTriesMax
      return isOver ? Effect.succeed(asked) : Effect.delay(attempt(tries + 1, count, idleTries), acquirePause)
    })
  return attempt(1, 0, 0)
}

const signature = (runners: ReadonlyArray<KnownRunner>) =>
  runners.map((each) => `${each.address}${each.healthy ? "+" : "-"}`).sort().join(" ")
