/**
 * Hands the queues of a node that stops over to the others, while it still answers: outcomes are taken until the moment
 * each actor ends, callers are told at once to ask again, and no worker loses its session before its attempts have a new
 * owner.
 *
 * First this node lets go of its shards, then the others learn that they are theirs; in this order they find the locks
 * free at their first try. They are told, so that they look at once.
 */
import { Effect, Layer } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Reach } from "./Reach.js"
import { Residents } from "./Residents.js"

/** Actors flush for at most 5 s (`QueueActor.close`); what then is left ends with the node. */
const handOverWithin = "6 seconds"
const poll = "10 millis"

const make = Effect.gen(function*() {
  const locks = yield* LockStorage
  const residents = yield* Residents
  const self = yield* NodeIdentity
  const reach = yield* Reach

  const handOver = Effect.gen(function*() {
    residents.hub.close()
    const own = locks.runners().find((each) => each.address === self.runnerAddress)
    const hasHeirs = locks.runners().some((each) => each.healthy && each !== own)
    if (own === undefined || !hasHeirs) return
    locks.leave()
    yield* Effect.sleep(poll).pipe(
      Effect.repeat({ until: () => locks.heldCount() === 0 && residents.list().length === 0 }),
      Effect.timeoutOption(handOverWithin)
    )
    yield* locks.setHealth(own.runner.address, false)
    yield* reach.membersChanged
  })
  yield* Effect.addFinalizer(() => Effect.interruptible(handOver).pipe(Effect.annotateLogs({ module: "Drain" })))
})

export const layer = Layer.scopedDiscard(make)
