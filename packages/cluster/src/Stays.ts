/**
 * What keeps the entities of queues awake: each waits here for as long as its actor is needed. One look at all of them, not a
 * timer and its fibers for each: those were a fifth of what a node with a hundred busy queues did (docs/decisions/0032).
 * Nothing runs while nobody waits.
 */
import { Duration, Effect, type Scope } from "effect"

/** Between two looks. */
export const idleCheck = Duration.millis(100)
/** The same while the node leaves. */
const leavingCheck = Duration.millis(10)

interface Stay {
  readonly isNeeded: () => boolean
  readonly done: () => void
}

export interface Leaving {
  readonly isLeaving: () => boolean
  /** Completes when the node is told to leave. */
  readonly leaving: Effect.Effect<void>
}

/** Waits until `isNeeded` holds no more: noticed within 100 ms, and first looked at after that; within 10 ms while the node leaves. */
export type WhileNeeded = (isNeeded: () => boolean) => Effect.Effect<void>

/** The looks end with the scope. */
export const make = ({ isLeaving, leaving }: Leaving): Effect.Effect<WhileNeeded, never, Scope.Scope> =>
  Effect.gen(function*() {
    const stays = new Set<Stay>()
    const some = yield* Effect.makeLatch(false)
    const look = Effect.sync(() => {
      for (const stay of stays) {
        if (stay.isNeeded()) continue
        stays.delete(stay)
        stay.done()
      }
      if (stays.size === 0) some.unsafeClose()
    })
    yield* some.await.pipe(
      Effect.zipRight(Effect.raceFirst(Effect.sleep(idleCheck), leaving)),
      Effect.zipRight(Effect.suspend(() => isLeaving() ? Effect.sleep(leavingCheck) : Effect.void)),
      Effect.zipRight(look),
      Effect.forever,
      Effect.forkScoped
    )
    return (isNeeded) =>
      Effect.async<void>((resume) => {
        const stay: Stay = { isNeeded, done: () => resume(Effect.void) }
        stays.add(stay)
        some.unsafeOpen()
        return Effect.sync(() => stays.delete(stay))
      })
  })
