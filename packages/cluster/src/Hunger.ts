/**
 * Tells a worker whether runs wait here for more of its slots, and how many one of them takes. What a single dispatch finds
 * changes with every batch of outcomes, and each word costs a message and a round of the worker's balancer; so only what
 * lasts is told, and no two words come within `checkMs` of each other.
 */

/** Runs must wait at both ends of this time before it is told, ms. */
export const checkMs = 50
/** No run may have waited for this long before it is taken back, ms. */
export const calmMs = 200

/** What is known of one worker. */
export interface Appetite {
  /** Most slots that one of the runs takes; 0: none waits. */
  told: number
  /** A check is on its way. */
  isWatched: boolean
  /** Monotonic ms: when a run was last found that wants as much as was told. */
  wantedAt: number
}

export const sated = (): Appetite => ({ told: 0, isWatched: false, wantedAt: -Infinity })

export interface Clock {
  readonly monotonic: () => number
  /** Runs something once, after some ms. */
  readonly later: (ms: number, run: () => void) => void
}

/** After a dispatch: `need` is what it found, `look` finds out anew, `tell` sends the word. 0: nothing waits. */
export const note = (clock: Clock, appetite: Appetite, need: number, worker: {
  readonly look: () => number
  readonly tell: (need: number) => void
}): void => {
  if (need > 0 && need >= appetite.told) appetite.wantedAt = clock.monotonic()
  if (need === appetite.told || appetite.isWatched) return
  const check = (): void => {
    appetite.isWatched = false
    const now = clock.monotonic()
    const found = worker.look()
    if (found > 0 && found >= appetite.told) appetite.wantedAt = now
    if (found === appetite.told) return
    if (found > appetite.told || now - appetite.wantedAt >= calmMs) {
      appetite.told = found
      worker.tell(found)
    } else watch()
  }
  const watch = (): void => {
    appetite.isWatched = true
    clock.later(checkMs, check)
  }
  watch()
}
