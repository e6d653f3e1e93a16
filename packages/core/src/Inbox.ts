import { Context, type Effect } from "effect"
import type { Fenced, StoreUnavailable } from "./Errors.js"
import type { PartitionName } from "./PartitionStore.js"
import type { RunId } from "./RunId.js"
import type { RunRequest } from "./RunRequest.js"

/** A request that an application has committed in its own transaction, and that no owner has taken yet. */
export interface InboxRow {
  /** `null`: for the owner of the queue's first partition to find out. */
  readonly partition: number | null
  readonly request: RunRequest
}

export interface InboxPage {
  /** In the order of their inserts. */
  readonly rows: ReadonlyArray<InboxRow>
  /** No row follows the last one. */
  readonly complete: boolean
}

/** A row that can never become a run, and why: JSON text of a `RunFailure`. */
export interface Refusal {
  readonly id: RunId
  readonly failure: string
}

/** Who says so: what it asks for is done only while the partition's epoch is this one. */
export interface InboxOwner {
  readonly partitionId: number
  readonly epoch: number
}

/** Partitions of one answer of `waiting`. */
export const waitingMax = 1_000

/**
 * PORT. Requests on their way from transactions of applications to the owners of their queues. Who writes it is no part of
 * the cluster; its owner takes a row away with the commit that makes the run (`JournalBatch.fromInbox`). Adapters pass
 * `inboxContract` of their package's tests; in memory there is none, as there is no transaction to be part of.
 */
export class Inbox extends Context.Tag("@orrery/core/Inbox")<Inbox, {
  /** Whether this inbox has ever had a row, rolled back or not. Once true it stays so. */
  readonly wasUsed: Effect.Effect<boolean, StoreUnavailable>
  /** Partitions with rows, at most `waitingMax`; those of rows without a partition as partition 0. */
  readonly waiting: Effect.Effect<ReadonlyArray<PartitionName>, StoreUnavailable>
  /** The first rows of a partition, at most `limit` and about `bytesMax` of payload; of partition 0 also those without one. */
  readonly read: (
    name: PartitionName,
    limit: number,
    bytesMax: number
  ) => Effect.Effect<InboxPage, StoreUnavailable>
  /** Gives rows their partitions. */
  readonly place: (
    rows: ReadonlyArray<{ readonly id: RunId; readonly partition: number }>
  ) => Effect.Effect<void, StoreUnavailable>
  /** Takes rows away whose runs are stored. */
  readonly remove: (owner: InboxOwner, ids: ReadonlyArray<RunId>) => Effect.Effect<void, Fenced | StoreUnavailable>
  /** Turns rows into failed runs, in the history. */
  readonly refuse: (
    owner: InboxOwner,
    refusals: ReadonlyArray<Refusal>
  ) => Effect.Effect<void, Fenced | StoreUnavailable>
}>() {}
