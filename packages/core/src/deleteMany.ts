/**
 * Deletes many final runs by a filter, dead letters among them, page by page. A loop of its caller that ends with it; what was
 * deleted is gone, and asked again it goes on with what is left.
 */
import { Chunk, Effect, Stream } from "effect"
import { manyDefault, manyProblem, sampleMax } from "./cancelMany.js"
import type { ClusterUnavailable, InvalidRequest } from "./Errors.js"
import { type FinalFilter, finalRuns } from "./finalRuns.js"
import type { RunId } from "./RunId.js"
import type { FinalState } from "./RunState.js"
import { listLimitMax, Runs } from "./Runs.js"

export const finalStates = ["succeeded", "failed", "cancelled", "expired"] as const

export interface DeleteManyOptions {
  /** At least one of `namespace`, `queue` and `task`. */
  readonly filter: FinalFilter & {
    /** Default: whatever is final. */
    readonly state?: FinalState
  }
  /** Counts them, and deletes none. Default false. */
  readonly dryRun?: boolean
  /** At most so many, newest first, 1 to 1,000,000. Default 10,000. */
  readonly limit?: number
}

export interface DeleteManyReport {
  /** Fitted the filter when they were read. */
  readonly matched: number
  readonly deleted: number
  /** False: there may be more than `limit`. */
  readonly isComplete: boolean
  /** The first ids, of a dry run. */
  readonly sample: ReadonlyArray<RunId>
}

/**
 * Runs that end while it goes on may be left out. What the delete of a run means for its identity key and for a request that is
 * sent again is said at `Runs.deleteFinal`.
 */
export const deleteMany = (
  { dryRun = false, filter: { state, ...filter }, limit = manyDefault }: DeleteManyOptions
): Effect.Effect<DeleteManyReport, InvalidRequest | ClusterUnavailable, Runs> =>
  Effect.gen(function*() {
    const problem = manyProblem(filter, limit)
    if (problem !== undefined) return yield* problem
    const runs = yield* Runs
    const sample: Array<RunId> = []
    let matched = 0
    let deleted = 0
    const page = (chunk: Chunk.Chunk<RunId>) =>
      Effect.gen(function*() {
        matched += chunk.length
        if (!dryRun) deleted += yield* runs.deleteFinal(Chunk.toReadonlyArray(chunk))
        else sample.push(...Chunk.take(chunk, sampleMax - sample.length))
      })
    const states = state === undefined ? finalStates : [state]
    yield* Stream.fromIterable(states).pipe(
      Stream.flatMap((each) => finalRuns(filter, each)),
      Stream.map(({ id }) => id),
      Stream.take(limit),
      Stream.rechunk(listLimitMax),
      Stream.runForEachChunk(page)
    )
    return { matched, deleted, isComplete: matched < limit, sample }
  })
