/**
 * A node watches itself, and leaves before others may act in its place.
 *
 * It must leave when its event loop stood still for longer than `eventLoopLagMaxMs` (below the server-side lease of its
 * locks), when peers have declared it dead, or when the locks could not be confirmed for a long time although the
 * database answers (a wedged lock connection). Leaving means: the process exits with code 75 and comes back
 * as a new incarnation. What it still tries to write until then is refused by the fence.
 */
import { SqlClient } from "@effect/sql"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Context, Data, Deferred, Effect, Layer } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"

/** The node must not go on. */
export class NodeFenced extends Data.TaggedError("NodeFenced")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export class SelfWatch extends Context.Tag("@orrery/cluster/SelfWatch")<SelfWatch, {
  /** Fails when the node must leave. */
  readonly fatal: Effect.Effect<never, NodeFenced>
  /** Longest stand-still of the event loop seen in the last second, ms. */
  readonly lagMs: () => number
}>() {}

/** Each one wakes an idle process: fewer, and what lies between two of them counts as stood still in full. */
const beatMs = 250
/** Part of the largest lag that the next beat keeps. */
const lagKept = 0.75
/** Locks unconfirmed for this long while the database answers: the lock connection is wedged. */
const wedgedMs = 30_000

const make = Effect.gen(function*() {
  const config = yield* NodeConfig
  const locks = yield* LockStorage
  const self = yield* NodeIdentity
  const sql = yield* SqlClient.SqlClient
  const fenced = yield* Deferred.make<never, NodeFenced>()
  const leave = (reason: string) => Deferred.fail(fenced, new NodeFenced({ reason }))
  let lagMs = 0
  let wasListed = false

  const stop = locks.onRunners(() => {
    const own = locks.runners().find((each) => each.address === self.runnerAddress)
    if (own?.healthy === true) wasListed = true
    else if (wasListed && own !== undefined) {
      Deferred.unsafeDone(fenced, new NodeFenced({ reason: "peers have declared this node dead" }))
    }
  })
  yield* Effect.addFinalizer(() => Effect.sync(stop))

  let lastBeat = performance.now()
  const beat = Effect.sync(() => {
    const now = performance.now()
    const gap = now - lastBeat
    lastBeat = now
    lagMs = Math.max(gap - beatMs, lagMs * lagKept)
    if (gap > config.eventLoopLagMaxMs) {
      const reason = `the event loop stood still for ${Math.round(gap)} ms, the limit is ${config.eventLoopLagMaxMs}`
      Deferred.unsafeDone(fenced, new NodeFenced({ reason }))
    }
  })
  yield* beat.pipe(Effect.delay(beatMs), Effect.forever, Effect.forkScoped)

  yield* Effect.gen(function*() {
    yield* Effect.sleep("5 seconds")
    if (locks.confirmedMsAgo() < wedgedMs) return
    yield* sql`select 1`.pipe(Effect.timeout("3 seconds"))
    yield* leave(
      `shard locks unconfirmed for ${Math.round(locks.confirmedMsAgo() / 1000)} s although the database answers`
    )
  }).pipe(Effect.catchAllCause(() => Effect.void), Effect.forever, Effect.forkScoped)

  return SelfWatch.of({ fatal: Deferred.await(fenced), lagMs: () => lagMs })
})

export const layer = Layer.scoped(SelfWatch, make)
