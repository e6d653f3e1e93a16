/** Final runs by a filter, read page by page as they are consumed: of dead letters, and of what is to be deleted. */
import { Chunk, Effect, Option, Stream } from "effect"
import type { ClusterUnavailable } from "./Errors.js"
import type { Run } from "./Run.js"
import type { RunId } from "./RunId.js"
import type { FinalState } from "./RunState.js"
import { listLimitMax, type RunFilter, Runs } from "./Runs.js"

/** What is left out holds for every run. */
export interface FinalFilter extends Pick<RunFilter, "namespace" | "queue" | "task"> {
  /** Tag of the failure. */
  readonly tag?: string
  /** Of the failure. */
  readonly fingerprint?: string
  /** Ended at or after it, ms since 1970. */
  readonly since?: number
  /** Ended before it. */
  readonly until?: number
}

/** Newest first by id. A filter that few fit makes it read many. */
export const finalRuns = (
  filter: FinalFilter,
  state: FinalState
): Stream.Stream<Run, ClusterUnavailable, Runs> => {
  const { namespace, queue, task } = filter
  const page = {
    state,
    limit: listLimitMax,
    ...namespace === undefined ? {} : { namespace },
    ...queue === undefined ? {} : { queue },
    ...task === undefined ? {} : { task }
  }
  return Stream.paginateChunkEffect(undefined as RunId | undefined, (before) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const found = yield* runs.list(before === undefined ? page : { ...page, before })
      const last = found[found.length - 1]
      const next = last === undefined ? Option.none() : Option.some(last.id)
      return [Chunk.fromIterable(found.filter(fits(filter))), next] as const
    }))
}

const fits = ({ fingerprint, since = -Infinity, tag, until = Infinity }: FinalFilter) => (run: Run): boolean =>
  (tag === undefined || run.failure?.tag === tag)
  && (fingerprint === undefined || run.failure?.fingerprint === fingerprint)
  && run.finishedAt !== null && run.finishedAt >= since && run.finishedAt < until
