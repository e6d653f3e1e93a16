/**
 * When a failed attempt is tried again. A policy is data: it is stored with the run, so that the owner
 * of the queue can decide without the code of the task.
 */
import { Duration, Option, Schedule, Schema } from "effect"

/** Longest delay a policy may ask for: 30 days. */
export const retryDelayMax = Duration.days(30)
/** Most attempts a policy may ask for. */
export const attemptsMax = 1_000

const Millis = Schema.Int.pipe(Schema.between(0, Duration.toMillis(retryDelayMax)))

const common = {
  /** All attempts, the first included. 1 means no retry. */
  maxAttempts: Schema.Int.pipe(Schema.between(1, attemptsMax)),
  /** Share of the delay, 0 to 1, by which it is spread both ways. 0.2 gives 80 to 120 %. */
  jitter: Schema.Number.pipe(Schema.between(0, 1))
}

export const RetryPolicy = Schema.Union(
  Schema.TaggedStruct("exponential", {
    ...common,
    baseMs: Millis,
    factor: Schema.Number.pipe(Schema.between(1, 100)),
    maxMs: Millis
  }),
  Schema.TaggedStruct("fixed", { ...common, delayMs: Millis }),
  Schema.TaggedStruct("linear", { ...common, baseMs: Millis, stepMs: Millis, maxMs: Millis }),
  Schema.TaggedStruct("list", { ...common, delaysMs: Schema.NonEmptyArray(Millis).pipe(Schema.maxItems(100)) })
)
export type RetryPolicy = typeof RetryPolicy.Type

interface Common {
  readonly maxAttempts?: number
  readonly jitter?: number
}

/** NaN for what is no duration: the schema then refuses it by its field. */
const millis = (input: Duration.DurationInput) =>
  Option.match(Duration.decodeUnknown(input), {
    onNone: () => Number.NaN,
    onSome: (duration) => Math.round(Duration.toMillis(duration))
  })
const decode = Schema.decodeUnknownSync(RetryPolicy)
const shared = (options: Common) => ({
  maxAttempts: options.maxAttempts ?? 5,
  jitter: options.jitter ?? 0.2
})

/** `base x factor^(attempt - 1)`, at most `max`. Throws `ParseError` on a bad number, naming it. */
export const exponential = (
  options: Common & {
    readonly base?: Duration.DurationInput
    readonly factor?: number
    readonly max?: Duration.DurationInput
  } = {}
): RetryPolicy =>
  decode({
    _tag: "exponential",
    ...shared(options),
    baseMs: millis(options.base ?? "1 second"),
    factor: options.factor ?? 2,
    maxMs: millis(options.max ?? "5 minutes")
  })

export const fixed = (options: Common & { readonly delay: Duration.DurationInput }): RetryPolicy =>
  decode({ _tag: "fixed", ...shared(options), delayMs: millis(options.delay) })

/** `base + step x (attempt - 1)`, at most `max`. */
export const linear = (
  options: Common & {
    readonly base: Duration.DurationInput
    readonly step: Duration.DurationInput
    readonly max?: Duration.DurationInput
  }
): RetryPolicy =>
  decode({
    _tag: "linear",
    ...shared(options),
    baseMs: millis(options.base),
    stepMs: millis(options.step),
    maxMs: millis(options.max ?? "1 hour")
  })

/** One delay per retry; the last one repeats. `maxAttempts` is one more than the list unless said. */
export const list = (
  options: Common & { readonly delays: ReadonlyArray<Duration.DurationInput> }
): RetryPolicy =>
  decode({
    _tag: "list",
    maxAttempts: options.maxAttempts ?? options.delays.length + 1,
    jitter: options.jitter ?? 0.2,
    delaysMs: options.delays.map(millis)
  })

/** One attempt, no retry. */
export const none: RetryPolicy = { _tag: "fixed", maxAttempts: 1, jitter: 0, delayMs: 0 }

/**
 * The default: exponential, 1 s doubling to at most 5 min, +-20 %, 5 attempts.
 *
 * Attempt 1 -> 1 s, 2 -> 2 s, 3 -> 4 s, 4 -> 8 s, then failed.
 */
export const standard: RetryPolicy = exponential()

/** Delay in ms before the attempt after `attempt`, without jitter. */
export const baseDelayMs = (policy: RetryPolicy, attempt: number): number => {
  switch (policy._tag) {
    case "exponential":
      return Math.min(policy.maxMs, policy.baseMs * policy.factor ** (attempt - 1))
    case "fixed":
      return policy.delayMs
    case "linear":
      return Math.min(policy.maxMs, policy.baseMs + policy.stepMs * (attempt - 1))
    case "list":
      return policy.delaysMs[Math.min(attempt, policy.delaysMs.length) - 1]!
  }
}

/**
 * Delay in ms before the attempt that follows failed attempt number `attempt`; `undefined` when that
 * was the last.
 *
 * `random` is in [0, 1); the same value gives the same delay, so a replay decides alike.
 */
export const delayMs = (policy: RetryPolicy, attempt: number, random: number): number | undefined => {
  if (attempt >= policy.maxAttempts) return undefined
  const spread = 1 + policy.jitter * (2 * random - 1)
  return Math.round(baseDelayMs(policy, attempt) * spread)
}

/** The same policy for use inside one process. Jitter is uniform over the same range. */
export const toSchedule = (policy: RetryPolicy): Schedule.Schedule<number> => {
  const attempts = Schedule.recurs(policy.maxAttempts - 1)
  const delayed = Schedule.addDelay(attempts, (retry) => Duration.millis(baseDelayMs(policy, retry + 1)))
  return policy.jitter === 0
    ? delayed
    : Schedule.jitteredWith(delayed, { min: 1 - policy.jitter, max: 1 + policy.jitter })
}
