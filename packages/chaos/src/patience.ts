/** Waiting with an end. */
import { Data, Duration, Effect } from "effect"

/** The end of every wait in a scenario: what has not come by then does not come. */
export const patience = Duration.seconds(90)
const pollEvery = Duration.millis(20)

export class NeverHappened extends Data.TaggedError("NeverHappened")<{
  readonly what: string
  readonly within: Duration.Duration
  readonly last: unknown
}> {
  override get message() {
    const seen = this.last === undefined ? "" : `; last seen: ${JSON.stringify(this.last)?.slice(0, 400)}`
    return `not within ${Duration.format(this.within)}: ${this.what}${seen}`
  }
}

/** Completes once it holds. Dies after a time: a scenario that cannot go on is over. */
export const until = (
  what: string,
  holds: () => boolean,
  within: Duration.Duration = patience
): Effect.Effect<void> => Effect.asVoid(eventually(what, Effect.sync(holds), (is) => is, within))

/** The value once it is as wanted. */
export const eventually = <A>(
  what: string,
  look: Effect.Effect<A>,
  holds: (value: A) => boolean,
  within: Duration.Duration = patience
): Effect.Effect<A> => {
  let last: A | undefined
  return look.pipe(
    Effect.tap((value) => {
      last = value
      return holds(value) ? Effect.void : Effect.sleep(pollEvery)
    }),
    Effect.repeat({ until: holds }),
    Effect.timeoutFail({ duration: within, onTimeout: () => new NeverHappened({ what, within, last }) }),
    Effect.orDie
  )
}
