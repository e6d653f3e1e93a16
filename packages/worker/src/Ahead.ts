/**
 * How many attempts may wait at this worker beyond its slots: as many as it gets through in about `aheadMs`, by the
 * attempts that ended last. With short attempts a freed slot then starts the next one at once, and assignments and
 * outcomes travel many to a message; with long ones nothing waits here that another worker could have begun
 * (docs/decisions/0006).
 */

/** What waits here should be begun within that time, ms. */
export const aheadMs = 100
/** At least this many may wait at a worker of few slots, if its attempts are short enough. */
export const aheadMin = 64
/** Attempts that the mean looks back on: one long one among many short ones says little. */
const samplesMax = 64
/** So many long ones are taken to have come before the first one. */
const samplesMin = 1

export interface Pace {
  readonly slots: number
  /** Mean time after which the worker has got through one more attempt, ms. */
  costMs: number
  samples: number
  /** What the nodes together may have waiting here. Changes by halves and doubles, so that nodes are seldom told. */
  allowed: number
}

/** Nothing is known: as if attempts were long. */
export const makePace = (slots: number): Pace => ({ slots, costMs: 2 * aheadMs, samples: samplesMin, allowed: 0 })

/** An attempt has ended. One that never waited for anything had the thread to itself. Answers whether `allowed` changed. */
export const noteEnd = (pace: Pace, tookMs: number, waited: boolean): boolean => {
  const costMs = waited ? tookMs / pace.slots : tookMs
  pace.samples = Math.min(pace.samples + 1, samplesMax)
  pace.costMs += (costMs - pace.costMs) / pace.samples
  const most = Math.max(pace.slots, aheadMin)
  const allowed = Math.min(most, Math.floor(aheadMs / pace.costMs))
  if (allowed === pace.allowed || (allowed > pace.allowed / 2 && allowed < Math.min(2 * pace.allowed, most))) {
    return false
  }
  pace.allowed = allowed
  return true
}

/**
 * Something has waited here for too long. `isStuck`: no slot of its node came free meanwhile, so attempts are longer than
 * those that ended last, and nothing may wait until they have proved short again. Else there was just too much.
 */
export const noteStall = (pace: Pace, isStuck: boolean): void => {
  if (isStuck) Object.assign(pace, makePace(pace.slots))
  else {
    pace.costMs *= 2
    pace.allowed = Math.floor(pace.allowed / 2)
  }
}
