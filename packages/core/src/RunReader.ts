import { Context, type Effect } from "effect"
import type { StoreUnavailable } from "./Errors.js"
import type { Run } from "./Run.js"
import type { RunId } from "./RunId.js"
import type { RunFilter } from "./Runs.js"

export interface FinalRun {
  readonly run: Run
  /** JSON texts, as stored with it. */
  readonly policy: string
  readonly keys: string | null
}

/**
 * PORT. Committed runs, final or not, for readers. May be served by a replica, so it may lag behind the journal;
 * the adapter on the primary does not.
 *
 * A run waiting for its time is shown as `ready` once that time has come.
 */
export class RunReader extends Context.Tag("@orrery/core/RunReader")<RunReader, {
  readonly find: (id: RunId) => Effect.Effect<Run | undefined, StoreUnavailable>
  /** A final run, with what is needed to make it anew. */
  readonly findFinal: (id: RunId) => Effect.Effect<FinalRun | undefined, StoreUnavailable>
  /** Newest first by id, at most `filter.limit`, and at most `listBytesMax` of payloads and results, but at least one. */
  readonly list: (filter: RunFilter) => Effect.Effect<ReadonlyArray<Run>, StoreUnavailable>
}>() {}
