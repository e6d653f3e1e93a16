import { Context, Effect, type Exit } from "effect"
import type { Fenced, Overloaded, StoreUnavailable } from "./Errors.js"
import type { Claim } from "./Identity.js"
import type { RunId } from "./RunId.js"
import type { FinalState, WaitingState } from "./RunState.js"

/** A run that is not final, as stored. Times are ms since 1970 by the database clock. */
export interface StoredRun {
  readonly id: RunId
  /** Order of arrival within the partition, across owners: `epoch * 2^30 + n`. */
  readonly seq: number
  readonly task: string
  readonly priority: number
  readonly createdAt: number
  readonly payload: string
  /** JSON text of a `RunPolicy`. */
  readonly policy: string
  /** JSON text of `RunKeys`, which decide in which line it waits (`lineOf`). */
  readonly keys: string | null
  /** Of the span in which it was enqueued (`TraceParent`). */
  readonly trace?: string | undefined
  readonly state: WaitingState | "running"
  readonly scheduledAt: number
  /** Place in line: `scheduledAt + priority * agingStep`; ties by `seq`. */
  readonly orderKey: number
  /** Attempts begun. */
  readonly attempt: number
  /** Attempts whose worker died. */
  readonly crashes: number
  /** Number of the last attempt's lease, `epoch * 2^30 + n`: it grows with every grant. 0: never started. */
  readonly lease: number
  readonly worker: string | null
  /** JSON text of a `RunFailure`. */
  readonly failure: string | null
  readonly startedAt: number | null
}

/** The part of a stored run that changes. */
export type RunUpdate =
  & Pick<
    StoredRun,
    | "id"
    | "state"
    | "scheduledAt"
    | "orderKey"
    | "attempt"
    | "crashes"
    | "lease"
    | "worker"
    | "failure"
    | "startedAt"
  >
  & {
    /** What it was enqueued with, changed while it waits. `task` in its version only; `keys` are the run's own. */
    readonly edit?: Pick<StoredRun, "payload" | "priority" | "task" | "keys">
  }

export interface RunFinish {
  readonly id: RunId
  readonly state: FinalState
  readonly attempt: number
  readonly crashes: number
  readonly worker: string | null
  readonly startedAt: number | null
  readonly result: string | null
  readonly failure: string | null
  /** False: the run leaves nothing behind. */
  readonly keep: boolean
  /** How long it is kept at least (`KeptDays`). Absent: as long as the longest that is said for all. */
  readonly keptDays?: number
}

/** What a start changes of a stored run. */
export type RunStart = Pick<RunUpdate, "id" | "attempt" | "lease"> & {
  readonly worker: string
  readonly startedAt: number
}

/** Starts of one commit, in a row of the partition. */
export interface StartRoll {
  /** Of the rows of the partition. Whatever was in it is replaced: each of its runs must have had a later change committed. */
  readonly slot: number
  readonly starts: ReadonlyArray<RunStart>
}

/** What one actor wants written together. At most one change per run in a batch. */
export interface JournalBatch {
  readonly partitionId: number
  readonly epoch: number
  /** At most one `claim` of a task and key among all batches under way. */
  readonly inserts: ReadonlyArray<{
    readonly run: StoredRun
    readonly resend: boolean
    /** The run that it is the redrive of. */
    readonly origin?: RunId
    readonly claim?: Claim | undefined
  }>
  readonly updates: ReadonlyArray<RunUpdate>
  readonly finishes: ReadonlyArray<RunFinish>
  /**
   * Starts that the runs themselves do not show yet: the next take-over finds those running that have not been changed under this lease
   * or a later one.
   */
  readonly roll?: StartRoll | undefined
  /** The new runs come out of the inbox: each is made only if this commit takes its row away. Default false. */
  readonly fromInbox?: boolean
}

export interface Committed {
  /**
   * Inserts that were not made because another run has that id, or the key of its claim (or, `fromInbox`, no row of the inbox has it), final ones included: whatever `resend` says, for the
   * first copy of a request can come after the second. A run of this partition with the same `seq` is the batch's own,
   * made when the batch was applied before.
   */
  readonly duplicates: ReadonlySet<RunId>
  /** Updates that met no run: it has ended meanwhile, in a transaction of its handler (`completeInTransaction`). Absent: none. */
  readonly gone?: ReadonlySet<RunId>
  /** The database clock, ms since 1970, taken before the commit. */
  readonly now: number
}

/**
 * PORT. The only way run state is written. Adapters pass `journalContract` in @orrery/testing.
 */
export class Journal extends Context.Tag("@orrery/core/Journal")<Journal, {
  /**
   * Writes the batch, whole or not at all, together with those of other actors.
   *
   * - durable when it answers
   * - `Fenced` when the partition's epoch is not the batch's: nothing of it was written; but when the connection was
   *   lost meanwhile, an earlier copy of the batch may have been, before the takeover, which then has seen it
   * - batches that change runs of one partition are applied one after the other, in the order given; a batch of inserts
   *   only may be applied before or beside others of its partition
   * - a connection lost around the commit is resolved inside: the batch is idempotent and applied again, up to
   *   the adapter's deadline; then `StoreUnavailable`, and the actor must take the partition over anew
   * - `Overloaded` when more bytes wait than the node may hold: nothing was written
   */
  readonly commit: (batch: JournalBatch) => Effect.Effect<Committed, Fenced | Overloaded | StoreUnavailable>
  /** The same without a fiber. `done` is called once, never before `submit` returns. */
  readonly submit: (batch: JournalBatch, done: (result: CommitResult) => void) => void
}>() {}

export type CommitResult = Exit.Exit<Committed, Fenced | Overloaded | StoreUnavailable>

/** A journal of its callback form. */
export const fromSubmit = (submit: Journal["Type"]["submit"]): Journal["Type"] =>
  Journal.of({ submit, commit: (batch) => Effect.async((resume) => submit(batch, resume)) })
