/**
 * What a handler may say with a failure, beside the error itself:
 *
 *   yield* Retry.after("30 seconds", new RateLimited())   not before that: the answer of an API, say
 *   yield* Retry.never(new Rejected())                    no other attempt, whatever the policy says
 *   yield* Retry.snooze("5 minutes")                      nothing to do yet: later, and no attempt is burned
 */
import { Data, Duration, Effect, Option } from "effect"
import { InvalidRequest } from "./Errors.js"
import { retryDelayMax } from "./RetryPolicy.js"
import { snoozeMs } from "./RunTimes.js"

/** The attempt failed with `error`; another one, if the policy has one left, begins no earlier than in `delayMs`. */
export class RetryAfter<E> extends Data.TaggedError("@orrery/core/RetryAfter")<{
  readonly error: E
  readonly delayMs: number
}> {}

/** The attempt failed with `error`, and there is no other. */
export class RetryNever<E> extends Data.TaggedError("@orrery/core/RetryNever")<{ readonly error: E }> {}

/** The run is put off, and this attempt does not count. */
export class Snooze extends Data.TaggedError("@orrery/core/Snooze")<{ readonly delayMs: number }> {}

/** What a handler of a task with errors `E` may fail with. */
export type Failing<E> = E | RetryAfter<E> | RetryNever<E> | Snooze

const millis = (field: string, input: Duration.DurationInput, min: number, max: number): Effect.Effect<number> => {
  const duration = Option.getOrUndefined(Duration.decodeUnknown(input))
  const ms = duration === undefined ? Number.NaN : Math.ceil(Duration.toMillis(duration))
  return ms >= min && ms <= max
    ? Effect.succeed(ms)
    : Effect.die(new InvalidRequest({ field, limit: `${min} to ${max} ms`, actual: String(input) }))
}

/**
 * Fails with `error`; the next attempt begins no earlier than after `delay` (0 to 30 days), in place of the pause of the policy,
 * whose jitter only lengthens it. Another delay is a defect.
 */
export const after = <E>(delay: Duration.DurationInput, error: E): Effect.Effect<never, RetryAfter<E>> =>
  Effect.flatMap(
    millis("Retry.after", delay, 0, Duration.toMillis(retryDelayMax)),
    (delayMs) => new RetryAfter({ error, delayMs })
  )

/** Fails with `error`, for good. */
export const never = <E>(error: E): Effect.Effect<never, RetryNever<E>> => new RetryNever({ error })

/**
 * Ends the attempt; the run waits for `delay` (0.1 s to 30 days) as `scheduled` and starts again under the same attempt number.
 * It expires when that would be after its deadline, or without one 30 days after its enqueue. Another delay is a defect.
 */
export const snooze = (delay: Duration.DurationInput): Effect.Effect<never, Snooze> =>
  Effect.flatMap(millis("Retry.snooze", delay, snoozeMs.min, snoozeMs.max), (delayMs) => new Snooze({ delayMs }))
