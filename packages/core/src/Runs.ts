import { Context, type Effect } from "effect"
import type {
  ClusterUnavailable,
  EditError,
  EnqueueError,
  InvalidRequest,
  RedriveError,
  RunNotFound
} from "./Errors.js"
import type { Explanation } from "./Explanation.js"
import type { Run } from "./Run.js"
import type { Edited, RunEdit } from "./RunEdit.js"
import type { RunId } from "./RunId.js"
import type { RunProgress } from "./RunNotes.js"
import type { RunRequest } from "./RunRequest.js"
import type { QueueName } from "./Signals.js"
import type { QueueChanges, RunChanges } from "./Watch.js"
import type { RunState } from "./RunState.js"

export interface RunFilter {
  readonly namespace?: string
  readonly queue?: string
  readonly task?: string
  readonly state?: RunState
  /** Ids below this one: the last id of the page before. */
  readonly before?: RunId
  /** 1 to 500. */
  readonly limit: number
}

/** By the ids of requests: the runs that stand for those that made none of their own (`IdentityRule`). Nearly always empty. */
export type SameRuns = ReadonlyMap<RunId, RunId>
export const noSameRuns: SameRuns = new Map()

/** `requested`: a running attempt is being interrupted; its end is awaited with `awaitFinal`. */
export type CancelAnswer = "cancelled" | "requested" | "already-final"

/** `isNew: false`: an earlier call has made it; two at the same moment may both be told that it is new. */
export interface Redriven {
  readonly id: RunId
  readonly isNew: boolean
}

export const listLimitMax = 500
/** 8 MiB of payloads and results end a page, so that it fits into one message. */
export const listBytesMax = 8 * 1024 * 1024

/**
 * PORT. What applications do with runs, from anywhere: inside a node, or over the wire.
 *
 * All calls may be repeated: the same run id names the same run.
 */
export class Runs extends Context.Tag("@orrery/core/Runs")<Runs, {
  /**
   * Stores the runs; answers once PostgreSQL has committed every one of them, and for which of them another run stands.
   *
   * Not a transaction: when it fails with `ClusterUnavailable`, `Overloaded`, `QueueFull` or `QuotaExceeded` some may be stored, and the
   * same requests may be sent again. The other errors mean that none was.
   */
  readonly enqueueMany: (requests: ReadonlyArray<RunRequest>) => Effect.Effect<SameRuns, EnqueueError>

  readonly get: (id: RunId) => Effect.Effect<Run, RunNotFound | ClusterUnavailable>

  /**
   * Newest first by id: `filter.limit` runs, or fewer when their payloads and results come to 8 MiB, but at least one.
   * Only an empty page is the end.
   */
  readonly list: (filter: RunFilter) => Effect.Effect<ReadonlyArray<Run>, ClusterUnavailable>

  /** The run once it is final. Waits as long as that takes; survives node failures. */
  readonly awaitFinal: (id: RunId) => Effect.Effect<Run, RunNotFound | ClusterUnavailable>

  /** What the run has told while it ran, with its newest log lines; `null`: nothing, or it is long gone. */
  readonly progress: (id: RunId) => Effect.Effect<RunProgress | null, ClusterUnavailable>

  /** Why it is where it is, as its owner sees it at this moment. */
  readonly explain: (id: RunId) => Effect.Effect<Explanation, RunNotFound | ClusterUnavailable>

  /**
   * What is new of a run since a cursor ("": from the beginning), once there is something; nothing new after `waitMs`, at most
   * 20 s. `Watch.run` is the stream of it.
   */
  readonly changes: (
    id: RunId,
    after: string,
    waitMs: number
  ) => Effect.Effect<RunChanges, RunNotFound | ClusterUnavailable>

  /** The same of the runs of a queue ("": from now on). `Watch.queue` is the stream of it. */
  readonly queueChanges: (
    name: QueueName,
    after: string,
    waitMs: number
  ) => Effect.Effect<QueueChanges, ClusterUnavailable>

  /** A waiting run is cancelled when this answers; a running one is being interrupted. */
  readonly cancel: (id: RunId) => Effect.Effect<CancelAnswer, RunNotFound | ClusterUnavailable>

  /**
   * Changes payload, priority and time of a run that waits, wherever it does. Durable when this answers: no attempt that begins
   * from then on, and whose outcome counts, knows the run as it was, also after a crash.
   *
   * - one that runs, or is final, is refused: `RunNotWaiting` names its state
   * - its keys (order, fairness, limits, identity) and its policy stay those of the enqueue, whatever the payload says
   * - with an ordering key it keeps its place: by the order of arrival. The time holds for it, and so for those behind it
   * - asked again after its answer was lost, it is made again; `RunNotWaiting` then does not tell whether the first was made
   */
  readonly edit: (id: RunId, edit: RunEdit) => Effect.Effect<Edited, EditError>

  /**
   * Deletes those of the runs that are final, for good, with what they have told; answers how many. At most `listLimitMax` ids.
   *
   * Their identity keys stay taken for their windows. A request that is sent again after its run was deleted makes it anew.
   */
  readonly deleteFinal: (ids: ReadonlyArray<RunId>) => Effect.Effect<number, InvalidRequest | ClusterUnavailable>

  /**
   * Makes a run that failed or expired anew: one with the same payload, keys, priority and policy, `origin` set to its id, and
   * all attempts and times before it. Durable when this answers. The new id is derived, so however often this is asked there is one.
   * `payload`: the same, encoded for the new run, where it is encrypted for the old one; clients with a codec do that by themselves.
   */
  readonly redrive: (id: RunId, payload?: string) => Effect.Effect<Redriven, RedriveError>

  /**
   * A hint that rows for these queues have been committed to the inbox. Sent behind the caller's back, many as one; when it is
   * lost, or this is absent, the sweep of the inbox finds them within a second.
   */
  readonly nudge?: (
    queues: ReadonlyArray<{ readonly namespace: string; readonly queue: string }>
  ) => Effect.Effect<void>
}>() {}
