import { Context, type Effect } from "effect"
import type { Fenced, StoreUnavailable } from "../Errors.js"
import type { RunId } from "../RunId.js"
import type { Schedule, Tick } from "./ScheduleDefinition.js"

/** Schedules are spread over so many actors. Fixed for the life of a database. */
export const partitionCount = 8

/** A run that a tick has decided on and that its queue may not have yet. */
export interface Promised {
  readonly runId: RunId
  readonly scheduleId: string
  readonly nominal: number
  /** Start no earlier. */
  readonly at: number
  /** It fills a range. */
  readonly isBackfill?: true
}

/** What one actor wants written together. */
export interface ScheduleBatch {
  readonly partition: number
  readonly epoch: number
  readonly saved: ReadonlyArray<Schedule>
  /** Stored ones whose definition is as it was: it is not written again. */
  readonly stepped: ReadonlyArray<Schedule>
  /** Ids. */
  readonly deleted: ReadonlyArray<string>
  readonly ticks: ReadonlyArray<Tick & { readonly scheduleId: string }>
  readonly promised: ReadonlyArray<Promised>
  /** Promised runs their queues have stored. */
  readonly kept: ReadonlyArray<RunId>
}

export interface ScheduleTakeover {
  /** Greater than every epoch before it. */
  readonly epoch: number
  /** The database clock, ms since 1970. */
  readonly now: number
}

export interface ScheduleFilter {
  readonly namespace?: string
  /** Ids after this one: the last of the page before. */
  readonly after?: string
  /** 1 to `listLimitMax`. */
  readonly limit: number
}

export const listLimitMax = 500
/** Schedules, or promised runs, of one page of loading. */
export const loadLimitMax = 1_000

/**
 * PORT. The durable truth about schedules. Adapters pass `scheduleStoreContract` in @orrery/testing.
 */
export class ScheduleStore extends Context.Tag("@orrery/core/ScheduleStore")<ScheduleStore, {
  /** Makes the caller the only writer of the partition: raises the epoch, and waits for commits under the old one. */
  readonly takeOver: (partition: number, owner: string) => Effect.Effect<ScheduleTakeover, StoreUnavailable>
  /** The present epochs of these partitions; those that were never taken over are left out. */
  readonly epochs: (partitions: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, number>, StoreUnavailable>
  /** Schedules of a partition by id, after `after`; `loadLimitMax` of them, or the last. */
  readonly load: (partition: number, after: string) => Effect.Effect<ReadonlyArray<Schedule>, StoreUnavailable>
  /** Promised runs of a partition by run id, after `after`; `loadLimitMax` of them, or the last. */
  readonly loadPromised: (
    partition: number,
    after: RunId | undefined
  ) => Effect.Effect<ReadonlyArray<Promised>, StoreUnavailable>
  /**
   * Writes the batch, whole or not at all; durable when it answers, with the database clock. May be repeated.
   * `Fenced` when the partition's epoch is not the batch's: nothing was written.
   */
  readonly commit: (batch: ScheduleBatch) => Effect.Effect<number, Fenced | StoreUnavailable>
  /**
   * Of the runs given, those that are over, and whether they failed. A run that is neither stored nor promised any more
   * is over. At most 1,000 at a time.
   */
  readonly ended: (
    runs: ReadonlyArray<RunId>
  ) => Effect.Effect<ReadonlyArray<{ readonly runId: RunId; readonly isFailure: boolean }>, StoreUnavailable>
  readonly now: Effect.Effect<number, StoreUnavailable>
  readonly find: (id: string) => Effect.Effect<Schedule | undefined, StoreUnavailable>
  /** By id. */
  readonly list: (filter: ScheduleFilter) => Effect.Effect<ReadonlyArray<Schedule>, StoreUnavailable>
  /** What became of the ticks of a schedule, the newest first. `limit`: 1 to `listLimitMax`. */
  readonly ticks: (id: string, limit: number) => Effect.Effect<ReadonlyArray<Tick>, StoreUnavailable>
  /** Forgets ticks decided before; answers how many, at most 10,000 at a time. */
  readonly pruneTicks: (before: number) => Effect.Effect<number, StoreUnavailable>
}>() {}

/** FNV-1a of the id. The same on every node, and for good. */
export const partitionOf = (id: string): number => {
  let hash = 0x811c9dc5
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193)
  return (hash >>> 0) % partitionCount
}
