import { Context, type Effect } from "effect"
import type { Fenced, StoreUnavailable } from "./Errors.js"
import type { QueueName } from "./Signals.js"
import type { RunId } from "./RunId.js"
import type { StoredNotes } from "./RunNotes.js"
import type { FinalState } from "./RunState.js"

/** What one owner wants written of runs of its partition. At most one row per run. */
export interface NotesBatch {
  readonly partitionId: number
  readonly epoch: number
  readonly rows: ReadonlyArray<{
    readonly notes: StoredNotes
    /** JSON text; `undefined`: as it was. */
    readonly checkpoint: string | undefined
  }>
}

/** The end of a run, for those who watch its queue. */
export interface RunEnd {
  readonly id: RunId
  readonly state: FinalState
  readonly finishedAt: number
}

export interface EndsQuery extends QueueName {
  /** Ends from this instant on, ms since 1970 by the database clock. */
  readonly since: number
  readonly limit: number
}

export interface Ends {
  /** In order of `finishedAt`. */
  readonly ends: ReadonlyArray<RunEnd>
  /** No end that is not among these, or comes after the last of them, will ever be found before this instant. */
  readonly horizon: number
  /** There are more than `limit`: ask again from the last one's instant. */
  readonly more: boolean
}

/** How a run has ended, or that it has not. */
export type Ending = FinalState | "open"

/** Ids of one question for endings. */
export const endingsMax = 1_000

/**
 * PORT. What runs have told while they ran, and the ends of runs in the order in which they came. Adapters pass
 * `progressStoreContract` in @orrery/testing.
 *
 * What a run has told stays until its history is gone; of a run that leaves no history, for about an hour.
 */
export class ProgressStore extends Context.Tag("@orrery/core/ProgressStore")<ProgressStore, {
  /**
   * Durable when it answers; whole or not at all. `Fenced` when the epoch is not the partition's any more: nothing was
   * written. May be repeated. A row of a newer lease is left as it is.
   */
  readonly write: (batch: NotesBatch) => Effect.Effect<void, Fenced | StoreUnavailable>
  /** Of those that have told something. */
  readonly find: (ids: ReadonlyArray<RunId>) => Effect.Effect<ReadonlyArray<StoredNotes>, StoreUnavailable>
  /** JSON text; `null`: there is none. */
  readonly checkpoint: (id: RunId) => Effect.Effect<string | null, StoreUnavailable>
  /** Ends of a queue's runs that have left a history. */
  readonly endsSince: (query: EndsQuery) => Effect.Effect<Ends, StoreUnavailable>
  /**
   * How these runs of the queue have ended, at most `endingsMax`. Absent: a run that is nowhere; it has ended without leaving a
   * history, or is of another queue, or was never stored.
   */
  readonly endings: (
    name: QueueName,
    ids: ReadonlyArray<RunId>
  ) => Effect.Effect<ReadonlyMap<RunId, Ending>, StoreUnavailable>
}>() {}
