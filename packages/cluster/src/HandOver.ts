/**
 * A partition goes from one node to another without a pause: its actor outlives its place here. It starts nothing more, and
 * what it has started is written down first, so that the heir finds every attempt that is out; then the shard is let go of,
 * while the actor still takes runs, outcomes and notes. The heir is called, and its take-over ends this one: the next commit
 * meets the fence, or the look at the epochs finds it replaced. Who waited here asks the new owner then, which is there.
 *
 * The two never both count: what the old owner has committed, it has committed before the take-over (decision 0031).
 */
import type { PartitionStore } from "@orrery/core/PartitionStore"
import { Duration, Effect } from "effect"
import type { ActorHost } from "./ActorHost.js"
import type { QueueActor } from "./QueueActor.js"

/** Where the actor of a partition may go. */
export interface Passage {
  /** The shard is another node's from now on, and there is another node. */
  readonly isOpen: () => boolean
  /** Has the actor made where the shard is now. May fail: it is called again. */
  readonly callHeir: Effect.Effect<unknown, unknown>
}

/** Starts are written down within milliseconds, unless the database is away. */
const writtenWithin = Duration.seconds(3)
/** Then it ends without an heir, as it did before there was a hand-over. */
const lingerMax = Duration.seconds(5)
const lookEvery = "50 millis"
const callPause = "50 millis"
const callTimeout = "1 second"
/** One that has nothing to do, and was not called for so long, ms, just ends: its heir is made when somebody asks for it. */
const quietMs = 5_000

export const isWanted = (actor: QueueActor): boolean =>
  actor.isOpen && (!actor.isIdle || actor.host.clock.now() - actor.lastActive < quietMs)

/** From now on it starts nothing. Completes when all that it has started is durable. Bounded by 3 s. */
export const retire = (actor: QueueActor): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    actor.isRetiring = true
    const { sent, waiting } = actor.writing
    let open = 1
    const told = (): void => {
      if (--open === 0) resume(Effect.void)
    }
    for (const entry of [...waiting, ...sent]) {
      if (entry.place !== "running") continue
      open += 1
      actor.wait(entry, { next: undefined, told })
    }
    actor.schedule()
    told()
  }).pipe(Effect.timeoutOption(writtenWithin), Effect.asVoid)

/** Those that wait for their heirs. One question for all, as long as there are any. */
export const make = (store: PartitionStore["Type"], fork: ActorHost["fork"]) => {
  const lingering = new Set<QueueActor>()
  let isLooking = false
  const look = Effect.gen(function*() {
    const asked = [...lingering]
    const epochs = yield* store.epochs(asked.map(({ partitionId }) => partitionId))
    for (const actor of asked) if (epochs.get(actor.partitionId) !== actor.epoch) actor.replaced()
  })
  const looking = Effect.ignore(look).pipe(
    Effect.delay(lookEvery),
    Effect.repeat({ while: () => lingering.size > 0 }),
    Effect.ensuring(Effect.sync(() => void (isLooking = false)))
  )
  const calling = (passage: Passage) =>
    passage.callHeir.pipe(
      Effect.timeout(callTimeout),
      Effect.catchAllCause(() => Effect.void),
      Effect.zipRight(Effect.sleep(callPause)),
      Effect.forever
    )

  /** Completes when it has been replaced, or after 5 s. */
  return (actor: QueueActor, passage: Passage): Effect.Effect<void> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        lingering.add(actor)
        if (isLooking) return
        isLooking = true
        fork(Effect.asVoid(looking))
      }),
      () => Effect.raceFirst(Effect.asVoid(actor.stopped), calling(passage)).pipe(Effect.timeoutOption(lingerMax)),
      () => Effect.sync(() => lingering.delete(actor))
    ).pipe(Effect.asVoid)
}
