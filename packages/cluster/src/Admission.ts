/**
 * A node gets no queues before another node reaches it. One that is cut off from the others, but not from the database, is left
 * out by them and comes back as a new node: it would take queues again that nobody reaches.
 *
 * It is recorded as unhealthy when it joins a cluster that has others (`LockStorage`), and asks them whether they reach it. One
 * yes will do. Nodes that are gone do not count; where all are gone, or there is none, it is admitted at once.
 */
import { Effect, Layer } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Reach } from "./Reach.js"

const askEvery = "250 millis"
/** Rounds after which it is worth a warning. */
const patientRounds = 8

const make = Effect.gen(function*() {
  const locks = yield* LockStorage
  const reach = yield* Reach
  const self = yield* NodeIdentity
  const own = () => locks.runners().find(({ address }) => address === self.runnerAddress)
  let rounds = 0

  const admit = Effect.gen(function*() {
    const found = own()
    // Not recorded yet, as far as this node has looked.
    if (found === undefined) return false
    if (found.healthy || locks.isLeaving()) return true
    const words = yield* reach.ask(reach.others(), self.nodeId)
    const isReached = words.includes("reaches") || words.every((word) => word === "gone")
    if (isReached) yield* locks.setHealth(found.runner.address, true)
    else if (++rounds === patientRounds) {
      yield* Effect.logWarning("no other node reaches this one: it takes no queues until one does")
    }
    return isReached
  })

  yield* admit.pipe(
    Effect.catchAllCause((cause) => Effect.as(Effect.logWarning("admission", cause), false)),
    Effect.tap((isIn) => isIn ? reach.membersChanged : Effect.sleep(own() === undefined ? "20 millis" : askEvery)),
    Effect.repeat({ until: (isIn) => isIn }),
    Effect.annotateLogs({ module: "Admission" }),
    Effect.forkScoped
  )
})

export const layer = Layer.scopedDiscard(make)
