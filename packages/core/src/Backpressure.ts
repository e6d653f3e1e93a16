/** What a caller does while its queue is full. */
import { Clock, Duration, Effect, Option } from "effect"
import { type EnqueueError, InvalidRequest, QueueFull, QuotaExceeded } from "./Errors.js"
import type { RunId } from "./RunId.js"
import { isOrdered, lineOf } from "./RunKeys.js"
import type { RunRequest } from "./RunRequest.js"
import type { Runs, SameRuns } from "./Runs.js"

/** Longest `waitAtMost`: 1 hour, in ms. */
export const waitMsMax = 3_600_000
/** Default `waitAtMost`: 30 s, in ms. */
export const waitMsDefault = 30_000

export interface WhenFull {
  /**
   * Where runs do not come in because of the task's `maxDepth` or `maxDepthPerTenant`: fail with `QueueFull` or `QuotaExceeded` (the
   * default), or `wait` until they do. Who waits asks again when the error says so; there is no order among those who wait.
   */
  readonly whenFull?: "fail" | "wait"
  /** Then it fails after all. 1 ms to 1 hour; default 30 s. Only with `whenFull: "wait"`. */
  readonly waitAtMost?: Duration.DurationInput
}

/** Runs of one call that wait for room at once. */
const waitingAtOnce = 256

/**
 * Stores the runs, and waits for room where the caller would. Then each asks for itself, so that one that is stored is not asked for again;
 * those with an ordering key one after the other.
 */
export const enqueueMany = (
  runs: Runs["Type"],
  requests: ReadonlyArray<RunRequest>,
  options: WhenFull
): Effect.Effect<SameRuns, EnqueueError> => {
  if (options.whenFull !== "wait" || requests.length === 1) return whenThereIsRoom(runs.enqueueMany(requests), options)
  const areOrdered = requests.some(({ keys, task }) => keys !== null && isOrdered(lineOf(task, keys)))
  return Effect.map(
    Effect.forEach(requests, (request) => whenThereIsRoom(runs.enqueueMany([request]), options), {
      concurrency: areOrdered ? 1 : waitingAtOnce
    }),
    (answers) => new Map<RunId, RunId>(answers.flatMap((same) => [...same]))
  )
}

/** Asks again until there is room, as long as the caller would wait. */
export const whenThereIsRoom = <A, R>(
  ask: Effect.Effect<A, EnqueueError, R>,
  { waitAtMost, whenFull = "fail" }: WhenFull
): Effect.Effect<A, EnqueueError, R> => {
  if (whenFull !== "wait") {
    return waitAtMost === undefined && whenFull === "fail" ? ask : new InvalidRequest(
      waitAtMost === undefined
        ? { field: "whenFull", limit: "fail or wait", actual: String(whenFull) }
        : { field: "waitAtMost", limit: "absent unless whenFull is wait", actual: String(waitAtMost) }
    )
  }
  const wait = waitAtMost === undefined
    ? Duration.millis(waitMsDefault)
    : Option.getOrUndefined(Duration.decodeUnknown(waitAtMost))
  const waitMs = wait === undefined ? Number.NaN : Duration.toMillis(wait)
  if (!(waitMs >= 1 && waitMs <= waitMsMax)) {
    return new InvalidRequest({ field: "waitAtMost", limit: `1 to ${waitMsMax} ms`, actual: String(waitAtMost) })
  }
  return Effect.flatMap(Clock.currentTimeMillis, (since) => {
    const attempt: Effect.Effect<A, EnqueueError, R> = Effect.catchAll(ask, (error) => {
      if (!(error instanceof QueueFull || error instanceof QuotaExceeded)) return Effect.fail(error)
      return Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const left = since + waitMs - now
        return left <= 0
          ? Effect.fail(error)
          : Effect.zipRight(Effect.sleep(Math.min(left, Math.max(1, error.retryAfterMs))), attempt)
      })
    })
    return attempt
  })
}
