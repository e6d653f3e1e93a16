/** A run as its readers see it, and how an attempt can end. */
import { Schema } from "effect"
import { Name } from "./Name.js"
import { RunId } from "./RunId.js"
import { RunState } from "./RunState.js"

/** Why an attempt did not succeed, as kept with the run. */
export const RunFailure = Schema.Struct({
  // Frames send the place in this list: new ones go to its end.
  kind: Schema.Literal(
    "failure",
    "defect",
    "timeout",
    "crashed",
    "interrupted",
    "undecodable",
    "unencodable",
    "cancelled"
  ),
  /** Tag of the task's typed error, or name of the defect. */
  tag: Schema.String,
  message: Schema.String,
  /** The task's typed error, encoded by its schema, as JSON text. Only for `kind: "failure"`. */
  error: Schema.optionalWith(Schema.String, { exact: true }),
  /** Of a run that failed or expired: the same for those of one cause (`fingerprint`). */
  fingerprint: Schema.optionalWith(Schema.String, { exact: true })
})
export type RunFailure = typeof RunFailure.Type

export const Run = Schema.Struct({
  id: RunId,
  namespace: Name,
  queue: Name,
  partition: Schema.Int,
  task: Name,
  /** Of the payload; absent: 1. */
  version: Schema.optionalWith(Schema.Int, { exact: true }),
  state: RunState,
  /** 0 is most urgent, 9 least, 5 the default. */
  priority: Schema.Int,
  /** Times are milliseconds since 1970 by the database clock. */
  createdAt: Schema.Number,
  scheduledAt: Schema.Number,
  startedAt: Schema.NullOr(Schema.Number),
  finishedAt: Schema.NullOr(Schema.Number),
  /** Attempts begun so far. */
  attempt: Schema.Int,
  /** JSON text, encoded by the task's payload schema. */
  payload: Schema.String,
  /** JSON text, encoded by the task's success schema; only when succeeded. */
  result: Schema.NullOr(Schema.String),
  /** Of the last attempt that did not succeed. */
  failure: Schema.NullOr(RunFailure),
  worker: Schema.NullOr(Schema.String),
  /** Why a ready run does not start, where the cluster knows: `noCapableWorker`. Only as of the moment it was read. */
  waitsFor: Schema.NullOr(Schema.String),
  /** The failed run that this one is the redrive of. */
  origin: Schema.optionalWith(RunId, { exact: true })
})
export type Run = typeof Run.Type

/** `Run.waitsFor`: no worker is attached that has a handler for the task. It starts when one comes. */
export const noCapableWorker = "no worker with this capability"

/** `Run.waitsFor`: an application has committed it to the inbox, and its queue is about to take it. Its partition is not known yet. */
export const inInbox = "its queue to take it out of the inbox"

/** How one attempt ended, as the worker tells it. Values are JSON text. */
export type Outcome =
  | { readonly _tag: "success"; readonly result: string }
  /** `retryable: false` ends the run as failed whatever the policy says. */
  | {
    readonly _tag: "failure"
    readonly failure: RunFailure
    readonly retryable: boolean
    /** Not again before that, in place of the pause of the policy, ms. */
    readonly retryAfterMs?: number
  }
  /** Later, and the attempt does not count. */
  | { readonly _tag: "snooze"; readonly delayMs: number }
  /** The owner asked for the interruption, and the handler has ended. */
  | { readonly _tag: "cancelled" }
  /** The worker stopped before the handler could end. Does not count as an attempt. */
  | { readonly _tag: "interrupted" }

export const defaultPriority = 5
export const priorityMax = 9
