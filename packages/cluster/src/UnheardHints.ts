/**
 * A node whose hints do not get out, for it has lost its Redis, says so to the other nodes by their own connections: others
 * may reach theirs, and hear nothing wrong. Their watchers look at the rows for as long.
 *
 * Where there are no hints that could be lost there is no timer.
 */
import { pollMs, Signals } from "@orrery/core/Signals"
import { Effect, Layer } from "effect"
import { Reach } from "./Reach.js"

/** From the loss to the word of it, at most, ms. */
const lookMs = 200

const make = Effect.gen(function*() {
  const signals = yield* Signals
  const reach = yield* Reach
  if (signals.health() === undefined) return
  yield* Effect.suspend(() =>
    signals.health()?.isUp === false
      ? Effect.zipRight(reach.hintsUnheard, Effect.sleep(pollMs))
      : Effect.sleep(lookMs)
  ).pipe(Effect.forever, Effect.forkScoped)
})

export const layer: Layer.Layer<never, never, Reach> = Layer.scopedDiscard(make)
