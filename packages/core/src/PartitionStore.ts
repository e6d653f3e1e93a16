import { Context, type Effect } from "effect"
import type { CountedRuns } from "./Depths.js"
import type { StoreUnavailable } from "./Errors.js"
import type { IdentityKey, StoredIdentity } from "./Identity.js"
import type { StoredRun } from "./Journal.js"
import type { QueueName, QueueRecord } from "./QueueSettings.js"
import type { RunId } from "./RunId.js"

/** Names a partition; `partitionKey` of it is its entity id. */
export interface PartitionName {
  readonly namespace: string
  readonly queue: string
  readonly partition: number
}

export interface WithWork extends PartitionName {
  readonly partitionId: number
}

export interface Takeover {
  readonly partitionId: number
  /** Greater than every epoch before it. */
  readonly epoch: number
  /** The database clock, ms since 1970. */
  readonly now: number
  /** The lines (`lineOf`) in which runs wait, in order of their text. */
  readonly lines: ReadonlyArray<string>
  /** Whether runs wait for their time outside of lines. */
  readonly hasTimers: boolean
  /** Every run recorded as running. */
  readonly running: ReadonlyArray<StoredRun>
  /** Of its queue; left out: nothing was ever said of it. */
  readonly settings?: QueueRecord
}

/** A queue and the revision of its settings that is known. */
export interface KnownSettings extends QueueName {
  readonly revision: number
}

/** One page of a window: runs after (`afterKey`, `afterSeq`), in order, at most `limit` and about `bytesMax` of payload. */
export interface PageRequest {
  readonly partitionId: number
  readonly afterKey: number
  readonly afterSeq: number
  readonly limit: number
  readonly bytesMax: number
}

export interface LinePageRequest extends PageRequest {
  readonly line: string
}

export interface PlaceInLine {
  readonly partitionId: number
  readonly line: string
  readonly orderKey: number
  readonly seq: number
  readonly limit: number
}

export interface Page {
  readonly runs: ReadonlyArray<StoredRun>
  /** No run follows the last one. */
  readonly complete: boolean
}

/**
 * PORT. What a queue actor reads. Adapters pass `partitionStoreContract` in @orrery/testing.
 */
export class PartitionStore extends Context.Tag("@orrery/core/PartitionStore")<PartitionStore, {
  /**
   * Makes the caller the only writer of the partition: raises the epoch (creating the partition at first), waits for
   * commits under the old one that are under way, and reads what they left.
   */
  readonly takeOver: (name: PartitionName, owner: string) => Effect.Effect<Takeover, StoreUnavailable>
  /**
   * One page per request, of one partition each: runs of a line by (orderKey, seq). Those are `ready`; in an ordered line also
   * `scheduled` or `retrying`.
   */
  readonly readLines: (
    pages: ReadonlyArray<LinePageRequest>
  ) => Effect.Effect<ReadonlyArray<Page>, StoreUnavailable>
  /** Runs of a line before a place in it, counted no further than `limit`. */
  readonly countBefore: (place: PlaceInLine) => Effect.Effect<number, StoreUnavailable>
  /** Runs of state `scheduled` or `retrying` that are in no ordered line, by (scheduledAt, seq), whether due or not. */
  readonly readTimers: (page: PageRequest) => Effect.Effect<Page, StoreUnavailable>
  /** A run of this partition that is not final. */
  readonly findRun: (partitionId: number, id: RunId) => Effect.Effect<StoredRun | undefined, StoreUnavailable>
  /** Of these keys those that runs of this partition have taken, in any order. */
  readonly readIdentities: (
    partitionId: number,
    keys: ReadonlyArray<IdentityKey>
  ) => Effect.Effect<ReadonlyArray<StoredIdentity>, StoreUnavailable>
  /** Forgets at most `limit` keys of this partition that have expired and whose runs are final; answers how many. */
  readonly pruneIdentities: (partitionId: number, limit: number) => Effect.Effect<number, StoreUnavailable>
  /** Its runs that are not final, at most `limit` of them. */
  readonly countRuns: (partitionId: number, limit: number) => Effect.Effect<CountedRuns, StoreUnavailable>
  /** By partition id: under which epoch its runs may be written now. */
  readonly epochs: (partitionIds: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, number>, StoreUnavailable>
  /** Settings of those queues whose revision is higher than the one that is known. */
  readonly newerSettings: (
    known: ReadonlyArray<KnownSettings>
  ) => Effect.Effect<ReadonlyArray<QueueRecord>, StoreUnavailable>
  /** The database clock, ms since 1970, taken before the answer. */
  readonly now: Effect.Effect<number, StoreUnavailable>
  /**
   * Partitions that hold at least one run that is not final, without those of `except`: a partition costs a look into each
   * of its lines, and that of a busy one can be long while a transaction elsewhere keeps its dead rows.
   */
  readonly listWithWork: (except: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<WithWork>, StoreUnavailable>
}>() {}

/** `|` cannot be part of a name, so two partitions never share a key. */
export const partitionKey = (name: PartitionName): string => `${name.namespace}|${name.queue}|${name.partition}`
