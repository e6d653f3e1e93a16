/**
 * Tells a worker whether runs wait here for more of its slots. What a single dispatch finds changes with every batch of
 * outcomes, and each word costs a message and a round of the worker's balancer; so only what lasts is told, and no two
 * words come within `checkMs` of each other.
 */

/** Runs must wait at both ends of this time before it is told, ms. */
export const checkMs = 50
/** No run may have waited for this long before it is taken back, ms. */
export const calmMs = 200

/** What is known of one worker. */
export interface Appetite {
  isTold: boolean
  /** A check is on its way. */
  isWatched: boolean
  /** Monotonic ms: when runs were last found waiting for it. */
  wantedAt: number
}

export const sated = (): Appetite => ({ isTold: false, isWatched: false, wantedAt: -Infinity })

export interface Clock {
  readonly monotonic: () => number
  /** Runs something once, after some ms. */
  readonly later: (ms: number, run: () => void) => void
}

/** After a dispatch: `isWanting` is what it found, `look` finds out anew, `tell` sends the word. */
export const note = (clock: Clock, appetite: Appetite, isWanting: boolean, worker: {
  readonly look: () => boolean
  readonly tell: (hungry: boolean) => void
}): void => {
  if (isWanting) appetite.wantedAt = clock.monotonic()
  if (isWanting === appetite.isTold || appetite.isWatched) return
  const check = (): void => {
    appetite.isWatched = false
    const now = clock.monotonic()
    const isHungry = worker.look()
    if (isHungry) appetite.wantedAt = now
    if (isHungry === appetite.isTold) return
    if (isHungry || now - appetite.wantedAt >= calmMs) {
      appetite.isTold = isHungry
      worker.tell(isHungry)
    } else watch()
  }
  const watch = (): void => {
    appetite.isWatched = true
    clock.later(checkMs, check)
  }
  watch()
}
