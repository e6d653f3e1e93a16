/**
 * What workers and the owners of queues say to each other. The same in process and over the wire.
 *
 * Credit: a worker with S slots gives each node it is attached to a share, S in sum, and starts no more attempts of
 * a node at once than its share. A node that has no more than its share out finds a slot free for each of them.
 * `hungry` tells the worker that a node could use more; it is told when it has stayed so, not at every turn.
 *
 * Cost: an attempt may take several slots (`Assignment.slots`); credit, and what is out, are counted in slots. Such an attempt
 * is assigned to slots that are free, never ahead. A node whose share is smaller than one of its runs says so (`need`), and
 * has a turn with a larger one.
 *
 * Ahead: a worker whose attempts are short lets a node have a few more out than its share. They wait at the worker
 * and start as slots become free, so that assignments and outcomes travel many to a message. Such an attempt is
 * assigned (its lease runs) but not started: start-to-close counts from its start; it goes back uncounted
 * (`interrupted`) when the worker stops, its session ends, or it has waited for some 250 ms. So nothing is hoarded:
 * what may wait is what the worker's recent attempts get through in about 100 ms, and nothing when they take longer
 * (docs/decisions/0006). Lost with its worker it does not count as crashed, unless it has been there for longer than
 * that (docs/decisions/0014).
 *
 * Lease: an attempt is the worker's as long as its session lives. A session that closes without goodbye is
 * lost after a short grace, a silent one after `leaseMs`. The worker counts the same time from its last
 * answered heartbeat, less a margin, and interrupts what it holds before the owner gives it to another.
 *
 * Outcomes are kept by the worker until the owner says that they are committed (or stale). When a partition
 * changes hands the new owner says `owned`, and the worker answers with what it still holds of it.
 *
 * Notes (`RunNotes`) go the same way, before the outcome of their attempt.
 */
import { Context, type Effect, type Scope } from "effect"
import type { ClusterUnavailable } from "./Errors.js"
import type { Outcome } from "./Run.js"
import type { RunId } from "./RunId.js"
import type { NoteReport } from "./RunNotes.js"

export interface Assignment {
  readonly partitionId: number
  readonly runId: RunId
  readonly task: string
  readonly payload: string
  /** Counted from 1. */
  readonly attempt: number
  /** Number of the lease, `epoch * 2^30 + n`. With `attempt`, the fencing token: an outcome counts only under the latest. */
  readonly lease: number
  /** Start-to-close, ms; 0: none. */
  readonly timeoutMs: number
  /** Of the span in which the run was enqueued (`TraceParent`). */
  readonly trace?: string | undefined
  /** Of its worker that the attempt takes. Default 1. */
  readonly slots?: number | undefined
}

/** Identifies one attempt of one run for good. */
export interface AttemptRef {
  readonly partitionId: number
  readonly runId: RunId
  readonly attempt: number
  readonly lease: number
}

export type ToWorker =
  | { readonly _tag: "assign"; readonly assignments: ReadonlyArray<Assignment> }
  /** Interrupt these; their end is reported as an outcome. */
  | { readonly _tag: "cancel"; readonly attempts: ReadonlyArray<AttemptRef> }
  /**
   * The node now owns this partition: announce what you hold of it. `expects`: attempts that its books say you hold; when
   * there are any, it must hear also that you hold none. `epoch`: under which it owns it. A node that was away may still
   * believe that it owns what others have taken over: of two, the one with the higher epoch does.
   */
  | { readonly _tag: "owned"; readonly partitionId: number; readonly expects: number; readonly epoch: number }
  /**
   * Whether runs wait at the node for more credit of this worker. `need`: one of them takes so many slots at once (default 1);
   * said only to a worker that knows of it.
   */
  | { readonly _tag: "hungry"; readonly hungry: boolean; readonly need?: number | undefined }

export interface OutcomeReport extends AttemptRef {
  readonly outcome: Outcome
}

/**
 * `accepted`: committed. `stale`: another attempt or outcome counts, drop it. `not-owner`: keep it and send it to
 * whichever node says `owned`.
 */
export type OutcomeAnswer = "accepted" | "stale" | "not-owner"

export interface Hello {
  /** Unique per worker process and start. */
  readonly workerId: string
  readonly tasks: ReadonlyArray<string>
  readonly credit: number
}

export interface WorkerSession {
  /** Lease of this node for silent workers, ms. */
  readonly leaseMs: number
  /** How long an outcome may wait for others to travel with it, ms; 0 where a message costs next to nothing. */
  readonly gatherMs: number
  /** Answers in the order of the reports, after the commit. */
  readonly report: (
    reports: ReadonlyArray<OutcomeReport>
  ) => Effect.Effect<ReadonlyArray<OutcomeAnswer>, ClusterUnavailable>
  /** Answers in the order of the reports, once what they say is durable. One of an attempt that has ended is `stale`. */
  readonly note: (
    reports: ReadonlyArray<NoteReport>
  ) => Effect.Effect<ReadonlyArray<OutcomeAnswer>, ClusterUnavailable>
  /** What an earlier attempt of the run has left for this one, JSON text; `null`: nothing. */
  readonly checkpoint: (attempt: AttemptRef) => Effect.Effect<string | null, ClusterUnavailable>
  /** Answers with those of `held` that the owner has given up: interrupt them, their outcome is stale. */
  readonly announce: (
    partitionId: number,
    held: ReadonlyArray<AttemptRef>
  ) => Effect.Effect<ReadonlyArray<AttemptRef>, ClusterUnavailable>
  /**
   * Sets the node's share of slots, and how many it may have out beyond it; answers how many slots its attempts take at
   * that moment (may be more). `slots`: all that the worker has.
   */
  readonly setCredit: (credit: number, ahead: number, slots: number) => Effect.Effect<number, ClusterUnavailable>
  readonly heartbeat: Effect.Effect<void, ClusterUnavailable>
  /** Ends with the session, for whatever reason. */
  readonly closed: Effect.Effect<void>
}

/**
 * A way to reach one node. Closing the scope of an attachment is a goodbye: attempts still out are handed back
 * as interrupted, not as crashed.
 */
export interface NodeLink {
  /** `host:port`, or the node's id in process. Equal for the same incarnation of a node only. */
  readonly node: string
  readonly attach: (
    hello: Hello,
    deliver: (message: ToWorker) => void
  ) => Effect.Effect<WorkerSession, ClusterUnavailable, Scope.Scope>
}

/** PORT. The nodes a worker attaches to, kept up to date. */
export class NodeLinks extends Context.Tag("@orrery/core/NodeLinks")<NodeLinks, {
  /** Calls back with all live nodes now and after each change, until the scope closes. */
  readonly watch: (changed: (links: ReadonlyArray<NodeLink>) => void) => Effect.Effect<void, never, Scope.Scope>
}>() {}
