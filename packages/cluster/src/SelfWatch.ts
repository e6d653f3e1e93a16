/**
 * A node watches itself, and leaves before others may act in its place.
 *
 * It must leave when its event loop stood still for longer than `eventLoopLagMaxMs` (below the server-side lease of its
 * locks), when peers have declared it dead, or when the locks could not be confirmed for a long time although the
 * database answers (a wedged lock connection). Leaving means: the process exits with code 75 and comes back
 * as a new incarnation. What it still tries to write until then is refused by the fence.
 *
 * Before all that it stops acting (`mayAct`): it starts no attempt once its locks have gone unconfirmed for nearly as
 * long as the server keeps them (3 s of 3.5 s by default), whether its loop stood still or the database is out of reach.
 * The time counts from the question that was last answered, so it is over here before it is over there.
 */
import { SqlClient } from "@effect/sql"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Context, Data, Deferred, Effect, Exit, Layer } from "effect"
import { DatabaseMemory } from "./DatabaseMemory.js"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { makeWedged } from "./wedged.js"

/** The node must not go on. */
export class NodeFenced extends Data.TaggedError("NodeFenced")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export class SelfWatch extends Context.Tag("@orrery/cluster/SelfWatch")<SelfWatch, {
  /** Fails when the node must leave. */
  readonly fatal: Effect.Effect<never, NodeFenced>
  /** False: others may act in the place of this node by now. */
  readonly mayAct: () => boolean
  /** Has the node leave. */
  readonly leave: (reason: string) => void
  /** Longest stand-still of the event loop seen in the last second, ms. */
  readonly lagMs: () => number
}>() {}

/** Each one wakes an idle process: fewer, and what lies between two of them counts as stood still in full. */
const beatMs = 250
/** Part of the largest lag that the next beat keeps. */
const lagKept = 0.75
/**
 * When the locks have been unconfirmed for so long, ms, nothing is started any more: before the server gives them away, and
 * late enough for a refresh that is slow.
 */
export const stepDownMs = (cluster: ClusterConfig["Type"]): number =>
  cluster.idleSessionTimeoutMs - Math.floor((cluster.idleSessionTimeoutMs - cluster.lockRefreshMs) * marginShare)

/** Part of the time between a refresh that is due and the end of the session. */
const marginShare = 1 / 3

const make = Effect.gen(function*() {
  const config = yield* NodeConfig
  const actWithinMs = stepDownMs(yield* ClusterConfig)
  const locks = yield* LockStorage
  const self = yield* NodeIdentity
  const sql = yield* SqlClient.SqlClient
  const fenced = yield* Deferred.make<never, NodeFenced>()
  let isFenced = false
  const leave = (reason: string): void => {
    isFenced = true
    Deferred.unsafeDone(fenced, new NodeFenced({ reason }))
  }
  // At once: what the node still closes may take longer than its process is given.
  yield* Deferred.await(fenced).pipe(
    Effect.catchAll(({ reason }) => Effect.logError(`this node must not go on: ${reason}`)),
    Effect.annotateLogs({ module: "SelfWatch" }),
    Effect.forkScoped
  )
  let lagMs = 0
  let wasListed = false

  const stop = locks.onRunners(() => {
    const own = locks.runners().find((each) => each.address === self.runnerAddress)
    if (own?.healthy === true) wasListed = true
    // One that leaves says so itself (`Drain`).
    else if (wasListed && own !== undefined && !locks.isLeaving()) {
      leave("peers have declared this node dead")
    }
  })
  yield* Effect.addFinalizer(() => Effect.sync(stop))

  const memory = yield* DatabaseMemory
  yield* memory.regressed.pipe(
    Effect.map((problem) => leave(`the database is not the one it was: ${problem}`)),
    Effect.forkScoped
  )

  let lastBeat = performance.now()
  const beat = Effect.sync(() => {
    const now = performance.now()
    const gap = now - lastBeat
    lastBeat = now
    lagMs = Math.max(gap - beatMs, lagMs * lagKept)
    if (gap > config.eventLoopLagMaxMs) {
      leave(`the event loop stood still for ${Math.round(gap)} ms, the limit is ${config.eventLoopLagMaxMs}`)
    }
  })
  yield* beat.pipe(Effect.delay(beatMs), Effect.forever, Effect.forkScoped)

  const isWedged = makeWedged()
  yield* Effect.gen(function*() {
    yield* Effect.sleep("5 seconds")
    // Nobody is asked as long as the locks are confirmed: an idle node makes no query for this.
    const isLate = locks.confirmedMsAgo() > actWithinMs
    const answers = isLate && Exit.isSuccess(yield* Effect.exit(Effect.timeout(sql`select 1`, "3 seconds")))
    const unconfirmedMs = locks.confirmedMsAgo()
    if (isWedged(performance.now(), unconfirmedMs, answers)) {
      leave(`shard locks unconfirmed for ${Math.round(unconfirmedMs / 1000)} s although the database answers`)
    }
  }).pipe(Effect.forever, Effect.forkScoped)

  return SelfWatch.of({
    fatal: Deferred.await(fenced),
    // The first to run after a stand-still may be an actor: it looks at the clock, not at what the beat has noted.
    mayAct: () =>
      !isFenced && memory.isTrusted() && locks.confirmedMsAgo() < actWithinMs &&
      performance.now() - lastBeat <= config.eventLoopLagMaxMs,
    leave,
    lagMs: () => lagMs
  })
})

export const layer = Layer.scoped(SelfWatch, make)
