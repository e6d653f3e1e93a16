/**
 * Cancels many runs by a filter, each through its owner. A loop of its caller that ends with it; what was cancelled stays so, and
 * asked again it goes on with what is left.
 */
import { Chunk, Effect, Option, Stream } from "effect"
import { type ClusterUnavailable, InvalidRequest } from "./Errors.js"
import { namePattern } from "./Name.js"
import type { RunId } from "./RunId.js"
import { listLimitMax, type RunFilter, Runs } from "./Runs.js"

/** Most runs of one call. */
export const manyMax = 1_000_000
export const manyDefault = 10_000
/** Ids shown of a dry run. */
export const sampleMax = 10
/** Asked of their owners at the same time. */
export const atOnce = 32

/** In any of these a run is not final. */
export const openStates = ["scheduled", "ready", "running", "retrying"] as const

export interface CancelManyOptions {
  /** At least one of `namespace`, `queue` and `task`: all runs of a cluster are not cancelled by an oversight. */
  readonly filter: Pick<RunFilter, "namespace" | "queue" | "task"> & {
    /** Default: whatever is not final. */
    readonly state?: typeof openStates[number]
  }
  /** Counts them, and cancels none. Default false. */
  readonly dryRun?: boolean
  /** At most so many, 1 to 1,000,000. Default 10,000. */
  readonly limit?: number
}

export interface CancelManyReport {
  /** Fitted the filter when they were read. */
  readonly matched: number
  /** They were waiting. */
  readonly cancelled: number
  /** They are being interrupted. */
  readonly requested: number
  /** They had ended meanwhile. */
  readonly alreadyFinal: number
  /** False: there may be more than `limit`. */
  readonly isComplete: boolean
  /** The first ids, of a dry run. */
  readonly sample: ReadonlyArray<RunId>
}

/**
 * Runs that are enqueued while it goes on may be left out. Fails with the first run whose owner cannot be reached: what was
 * done stays done.
 */
export const cancelMany = (
  { dryRun = false, filter, limit = manyDefault }: CancelManyOptions
): Effect.Effect<CancelManyReport, InvalidRequest | ClusterUnavailable, Runs> =>
  Effect.gen(function*() {
    const problem = manyProblem(filter, limit)
    if (problem !== undefined) return yield* problem
    const runs = yield* Runs
    const counts = { matched: 0, cancelled: 0, requested: 0, "already-final": 0 }
    const sample: Array<RunId> = []
    const one = (id: RunId) => {
      counts.matched += 1
      if (!dryRun) {
        return runs.cancel(id).pipe(
          // Its history has been dropped since.
          Effect.catchTag("RunNotFound", () => Effect.succeed("already-final" as const)),
          Effect.map((answer) => void (counts[answer] += 1))
        )
      }
      if (sample.length < sampleMax) sample.push(id)
      return Effect.void
    }
    yield* Stream.runForEachChunk(
      Stream.take(openIds(runs, filter), limit),
      (chunk) => Effect.forEach(chunk, one, { concurrency: atOnce, discard: true })
    )
    const { "already-final": alreadyFinal, ...others } = counts
    return { ...others, alreadyFinal, isComplete: counts.matched < limit, sample }
  })

/** Of a call about many runs: all of a cluster are not meant by an oversight. */
export const manyProblem = (
  filter: Pick<RunFilter, "namespace" | "queue" | "task">,
  limit: number
): InvalidRequest | undefined => {
  if (filter.namespace === undefined && filter.queue === undefined && filter.task === undefined) {
    return new InvalidRequest({ field: "filter", limit: "with a namespace, a queue or a task", actual: "none" })
  }
  for (const field of ["namespace", "queue", "task"] as const) {
    const value = filter[field]
    if (value === undefined || namePattern.test(value)) continue
    return new InvalidRequest({
      field,
      limit: "1 to 200 characters of A-Z a-z 0-9 _ . : / -",
      actual: value.slice(0, 250)
    })
  }
  return Number.isInteger(limit) && limit >= 1 && limit <= manyMax
    ? undefined
    : new InvalidRequest({ field: "limit", limit: `1 to ${manyMax}`, actual: String(limit) })
}

/** Newest first, one state after the other; a run that moves on meanwhile may come twice, and is then final. */
export const openIds = (
  runs: Runs["Type"],
  { state, ...filter }: CancelManyOptions["filter"]
): Stream.Stream<RunId, ClusterUnavailable> => {
  const states = state === undefined ? openStates : [state]
  return Stream.flatMap(
    Stream.fromIterable(states),
    (each) =>
      Stream.paginateChunkEffect(undefined as RunId | undefined, (before) =>
        Effect.map(
          runs.list({ ...filter, state: each, limit: listLimitMax, ...before === undefined ? {} : { before } }),
          (found) => {
            const last = found[found.length - 1]
            return [
              Chunk.fromIterable(found.map(({ id }) => id)),
              last === undefined ? Option.none() : Option.some(last.id)
            ] as const
          }
        ))
  )
}
