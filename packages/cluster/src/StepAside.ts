/**
 * Clients of a node that cannot do its work, while another one can, are sent there: a node that is cut off from the database
 * answers pings and goes on forwarding to the owners it knows of, and does not hear who owns its former queues.
 *
 * Where no other is ready they stay. It is the database that is away then: moving would help nobody, and break what they wait for.
 */
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { Context, Effect, Layer } from "effect"
import { LockStorage } from "./LockStorage.js"
import { Reach } from "./Reach.js"
import { SelfWatch, stepDownMs } from "./SelfWatch.js"

export class StepAside extends Context.Tag("@orrery/cluster/StepAside")<StepAside, {
  /** Completes while it is better to call another node: this one is told to leave, or may not act and a peer is ready. */
  readonly betterElsewhere: Effect.Effect<void>
}>() {}

/** While it may not act. */
const lookEveryMs = 500
/** Its locks may be confirmed just when it looks. */
const soonMs = 100

const make = Effect.gen(function*() {
  const locks = yield* LockStorage
  const self = yield* SelfWatch
  const reach = yield* Reach
  const actWithinMs = stepDownMs(yield* ClusterConfig)
  const isAside = yield* Effect.makeLatch(false)
  const look = Effect.suspend(() => self.mayAct() ? Effect.succeed(false) : reach.othersReady).pipe(
    Effect.flatMap((isBetter) => isBetter ? isAside.open : isAside.close)
  )
  /** An idle process is not woken before it can have come about. */
  const untilNext = Effect.suspend(() =>
    Effect.sleep(self.mayAct() ? Math.max(soonMs, actWithinMs - locks.confirmedMsAgo()) : lookEveryMs)
  )
  yield* untilNext.pipe(Effect.zipRight(look), Effect.forever, Effect.forkScoped)
  return StepAside.of({ betterElsewhere: Effect.raceFirst(locks.leaving, isAside.await) })
})

export const layer = Layer.scoped(StepAside, make)
