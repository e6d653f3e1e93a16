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
const lookEvery = "20 millis"
/** A node that is ready has been admitted, unless that takes longer: then it is up, and has no queues. */
const startWaitsFor = "2 seconds"
/** Rounds after which it is worth a warning. */
const patientRounds = 8

const make = Effect.gen(function*() {
  const locks = yield* LockStorage
  const reach = yield* Reach
  const self = yield* NodeIdentity
  const own = () => locks.runners().find(({ address }) => address === self.runnerAddress)
  /** Whether this node has seen itself and all others: the directory learns their addresses a moment later. */
  const hasLooked = (): boolean => {
    const others = locks.runners().filter(({ address, healthy }) => healthy && address !== self.runnerAddress)
    return own() !== undefined && reach.others().length >= others.length
  }
  const isOver = yield* Effect.makeLatch(false)
  let rounds = 0

  const admit = Effect.gen(function*() {
    const found = own()
    if (found === undefined || !hasLooked()) return false
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
    Effect.tap((isIn) => isIn ? reach.membersChanged : Effect.sleep(hasLooked() ? askEvery : lookEvery)),
    Effect.repeat({ until: (isIn) => isIn }),
    Effect.zipRight(isOver.open),
    Effect.annotateLogs({ module: "Admission" }),
    Effect.forkScoped
  )
  yield* Effect.timeoutOption(isOver.await, startWaitsFor)
})

export const layer = Layer.scopedDiscard(make)
