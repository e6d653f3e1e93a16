/**
 * Hands the queues of a node that stops over to the others, while it still answers: its actors start nothing more, and take
 * runs and outcomes until their heirs have taken over (`HandOver`). No worker loses its session before its attempts have a
 * new owner.
 *
 * First the others hear which queues they go on asking this node for. Then it lets go of its shards, and they learn that these are
 * theirs; in this order they find the locks free at their first try. They are told, so that they look at once.
 */
import { type Duration, Effect, Layer } from "effect"
import { isWanted } from "./HandOver.js"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Reach } from "./Reach.js"
import { Residents } from "./Residents.js"

/** Starts are written within 3 s (`HandOver.retire`); what then has not let go ends with the node. */
const releaseWithin = "4 seconds"
/** What then has no heir ends with the node. */
const heirsWithin = "3 seconds"
/** Over all: what hangs must not keep the node. */
const drainWithin = "9 seconds"
const poll = "10 millis"

const make = Effect.gen(function*() {
  const locks = yield* LockStorage
  const residents = yield* Residents
  const self = yield* NodeIdentity
  const reach = yield* Reach
  const until = (holds: () => boolean, within: Duration.DurationInput) =>
    Effect.sleep(poll).pipe(Effect.repeat({ until: holds }), Effect.timeoutOption(within))

  const handOver = Effect.gen(function*() {
    residents.hub.close()
    const own = locks.runners().find((each) => each.address === self.runnerAddress)
    if (own === undefined || !locks.hasOthers()) return
    yield* reach.departs(residents.list().filter(isWanted).map(({ name }) => name))
    locks.leave()
    yield* until(() => locks.heldCount() === 0, releaseWithin)
    yield* locks.setHealth(own.runner.address, false)
    yield* reach.membersChanged
    yield* until(() => residents.list().length === 0, heirsWithin)
  })
  yield* Effect.addFinalizer(() =>
    handOver.pipe(
      // In a fiber of its own, as `timeout` makes one: this one may be on its way out by an interruption, as at SIGTERM, and
      // what is interruptible in it ends at once.
      Effect.interruptible,
      Effect.timeoutOption(drainWithin),
      Effect.annotateLogs({ module: "Drain" })
    )
  )
})

export const layer = Layer.scopedDiscard(make)
