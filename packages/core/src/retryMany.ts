/**
 * Lets runs that wait for their next attempt begin it now, each by an edit of its time: after an outage, say. For runs that have
 * failed there is `DeadLetters.redrive`. A loop of its caller that ends with it; what was done stays done.
 */
import { Effect, Stream } from "effect"
import { atOnce, manyDefault, manyProblem, openIds, sampleMax } from "./cancelMany.js"
import type { EditError } from "./Errors.js"
import type { RunId } from "./RunId.js"
import { type RunFilter, Runs } from "./Runs.js"

export interface RetryManyOptions {
  /** At least one of them: all runs of a cluster are not meant by an oversight. */
  readonly filter: Pick<RunFilter, "namespace" | "queue" | "task">
  /** Counts them, and changes none. Default false. */
  readonly dryRun?: boolean
  /** At most so many, newest first, 1 to 1,000,000. Default 10,000. */
  readonly limit?: number
}

export interface RetryManyReport {
  /** Waited for an attempt when they were read. */
  readonly matched: number
  /** Are due now. */
  readonly retried: number
  /** Had begun, ended, or come to their deadline meanwhile. */
  readonly gone: number
  /** False: there may be more than `limit`. */
  readonly isComplete: boolean
  /** The first ids, of a dry run. */
  readonly sample: ReadonlyArray<RunId>
}

/** Limits, rates and the order of their queue hold for them as for any. Fails with the first run whose owner cannot be reached. */
export const retryMany = (
  { dryRun = false, filter, limit = manyDefault }: RetryManyOptions
): Effect.Effect<RetryManyReport, EditError, Runs> =>
  Effect.gen(function*() {
    const problem = manyProblem(filter, limit)
    if (problem !== undefined) return yield* problem
    const runs = yield* Runs
    const counts = { matched: 0, retried: 0, gone: 0 }
    const sample: Array<RunId> = []
    const one = (id: RunId) => {
      counts.matched += 1
      if (!dryRun) {
        return runs.edit(id, { when: { _tag: "delay", ms: 0 } }).pipe(
          Effect.map(() => void (counts.retried += 1)),
          Effect.catchTag("RunNotFound", "RunNotWaiting", "InvalidRequest", () =>
            Effect.sync(() =>
              void (counts.gone += 1)
            ))
        )
      }
      if (sample.length < sampleMax) {
        sample.push(id)
      }
      return Effect.void
    }
    yield* Stream.runForEachChunk(
      Stream.take(openIds(runs, { ...filter, state: "retrying" }), limit),
      (chunk) =>
        Effect.forEach(chunk, one, { concurrency: atOnce, discard: true })
    )
    return { ...counts, isComplete: counts.matched < limit, sample }
  })
