/**
 * How long this process could do nothing: because of what it computed itself, or because the machine was busy with other things.
 * What a test says about time must not count it.
 */
import { Effect, type Scope } from "effect"

const beatMs = 2
/** A timer is late by so much on a quiet machine too, ms. */
const usualMs = 2

export interface StandStill {
  /** Longest at a stretch, ms. */
  readonly longest: () => number
  /** In all, ms. */
  readonly sum: () => number
}

const begin = (): StandStill & { readonly end: () => void } => {
  let longest = 0
  let sum = 0
  let last = performance.now()
  const beat = (): void => {
    const now = performance.now()
    const late = now - last - beatMs
    last = now
    if (late <= usualMs) return
    longest = Math.max(longest, late)
    sum += late
  }
  const timer = setInterval(beat, beatMs)
  return {
    longest: () => {
      beat()
      return longest
    },
    sum: () => {
      beat()
      return sum
    },
    end: () => clearInterval(timer)
  }
}

/** From now on, until the scope closes. */
export const standStill: Effect.Effect<StandStill, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(begin),
  ({ end }) => Effect.sync(end)
)

/** How long `effect` took without what this process stood still meanwhile, ms, and its value. */
export const timedAwake = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [number, A], E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => ({ ...begin(), began: performance.now() })),
    ({ began, sum }) => Effect.map(effect, (value) => [performance.now() - began - sum(), value] as const),
    ({ end }) => Effect.sync(end)
  )
