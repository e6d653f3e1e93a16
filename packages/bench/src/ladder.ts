/** Finds the highest step of a ladder that holds, by trying as few as may be. */
import { Effect } from "effect"

export interface Ladder {
  /** Ascending. */
  readonly rates: ReadonlyArray<number>
  /** Index of the step to begin with. */
  readonly from: number
  /** A step fails only when so many attempts do: one of them may have met a busy machine. */
  readonly attempts: number
}

/**
 * From the first step up until one fails; when already the first does, down until one holds. 0 when none does. A step is
 * taken to hold when a higher one did.
 */
export const climb = <E, R>(
  { attempts, from, rates }: Ladder,
  attempt: (rate: number) => Effect.Effect<boolean, E, R>
): Effect.Effect<number, E, R> =>
  Effect.gen(function*() {
    let highest = 0
    for (let at = from; at < rates.length; at++) {
      if (!(yield* holds(attempt(rates[at]!), attempts))) break
      highest = rates[at]!
    }
    for (let at = from - 1; highest === 0 && at >= 0; at--) {
      if (yield* holds(attempt(rates[at]!), attempts)) highest = rates[at]!
    }
    return highest
  })

const holds = <E, R>(attempt: Effect.Effect<boolean, E, R>, attempts: number): Effect.Effect<boolean, E, R> =>
  Effect.flatMap(attempt, (held) => held || attempts <= 1 ? Effect.succeed(held) : holds(attempt, attempts - 1))
