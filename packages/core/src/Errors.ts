/** Failures that cross a boundary: to a caller, over the wire, into a stored run. A list; read it as one. */
import { Schema } from "effect"
import { RunId } from "./RunId.js"

/** The payload does not fit the task's schema. Nothing was stored. */
export class PayloadInvalid
  extends Schema.TaggedError<PayloadInvalid>("@orrery/core/PayloadInvalid")("PayloadInvalid", {
    task: Schema.String,
    issue: Schema.String
  })
{
  override get message() {
    return `payload of ${this.task} is invalid: ${this.issue}`
  }
}

/** The encoded payload is larger than the cluster accepts. Nothing was stored. */
export class PayloadTooLarge
  extends Schema.TaggedError<PayloadTooLarge>("@orrery/core/PayloadTooLarge")("PayloadTooLarge", {
    task: Schema.String,
    sizeBytes: Schema.Number,
    limitBytes: Schema.Number
  })
{
  override get message() {
    return `payload of ${this.task} is ${this.sizeBytes} bytes, the limit is ${this.limitBytes}`
  }
}

/** A field of a request is out of bounds. Nothing was stored. */
export class InvalidRequest
  extends Schema.TaggedError<InvalidRequest>("@orrery/core/InvalidRequest")("InvalidRequest", {
    field: Schema.String,
    limit: Schema.String,
    actual: Schema.String
  })
{
  override get message() {
    return `${this.field} must be ${this.limit}, got ${this.actual}`
  }
}

/** No run has this id, or its history has been dropped. */
export class RunNotFound extends Schema.TaggedError<RunNotFound>("@orrery/core/RunNotFound")("RunNotFound", {
  runId: RunId
}) {
  override get message() {
    return `run ${this.runId} not found`
  }
}

/** Only a run that failed or expired can be made anew. Nothing was stored. */
export class NotRedrivable extends Schema.TaggedError<NotRedrivable>("@orrery/core/NotRedrivable")("NotRedrivable", {
  runId: RunId,
  state: Schema.String,
  /** Where it is not the state. */
  reason: Schema.optionalWith(Schema.String, { exact: true })
}) {
  override get message() {
    return this.reason === undefined
      ? `run ${this.runId} is ${this.state}, only one that failed or expired can be redriven`
      : `run ${this.runId} cannot be redriven: ${this.reason}`
  }
}

/** Only a run that waits can be edited. This call has changed nothing; one whose answer was lost may have, before the run began. */
export class RunNotWaiting extends Schema.TaggedError<RunNotWaiting>("@orrery/core/RunNotWaiting")("RunNotWaiting", {
  runId: RunId,
  state: Schema.String
}) {
  override get message() {
    return `run ${this.runId} is ${this.state}, only one that waits can be edited`
  }
}

/** The node has as much unwritten work as it may hold. Nothing was stored; try again after `retryAfterMs`. */
export class Overloaded extends Schema.TaggedError<Overloaded>("@orrery/core/Overloaded")("Overloaded", {
  what: Schema.String,
  limit: Schema.Number,
  actual: Schema.Number,
  retryAfterMs: Schema.Number
}) {
  override get message() {
    return `${this.what} is at its bound (${this.actual} of ${this.limit}), retry after ${this.retryAfterMs} ms`
  }
}

/**
 * As many runs of the queue's partition are not final as its task, or a setting of the queue, allows. The run was not stored; others of the same call may have
 * been, and the same requests may be sent again after `retryAfterMs`.
 */
export class QueueFull extends Schema.TaggedError<QueueFull>("@orrery/core/QueueFull")("QueueFull", {
  namespace: Schema.String,
  queue: Schema.String,
  limit: Schema.Number,
  actual: Schema.Number,
  retryAfterMs: Schema.Number
}) {
  override get message() {
    return `queue ${this.namespace}|${this.queue} is full (maxDepth ${this.limit}, ${this.actual} runs), `
      + `retry after ${this.retryAfterMs} ms`
  }
}

/** The same of the runs of one tenant (fairness key) in that partition. */
export class QuotaExceeded extends Schema.TaggedError<QuotaExceeded>("@orrery/core/QuotaExceeded")("QuotaExceeded", {
  namespace: Schema.String,
  queue: Schema.String,
  tenant: Schema.String,
  limit: Schema.Number,
  actual: Schema.Number,
  retryAfterMs: Schema.Number
}) {
  override get message() {
    return `tenant ${this.tenant} is at its quota in queue ${this.namespace}|${this.queue} `
      + `(maxDepthPerTenant ${this.limit}, ${this.actual} runs), retry after ${this.retryAfterMs} ms`
  }
}

/** The database did not answer, or refused. Retrying may help; what was asked may or may not have happened. */
export class StoreUnavailable
  extends Schema.TaggedError<StoreUnavailable>("@orrery/core/StoreUnavailable")("StoreUnavailable", {
    operation: Schema.String,
    cause: Schema.Defect
  })
{
  override get message() {
    return `store unavailable in ${this.operation}: ${
      this.cause instanceof Error ? this.cause.message : String(this.cause)
    }`
  }
}

/** Another actor has taken the partition over since; this one must stop and drop its memory. */
export class Fenced extends Schema.TaggedError<Fenced>("@orrery/core/Fenced")("Fenced", {
  partitionId: Schema.Number,
  epoch: Schema.Number
}) {
  override get message() {
    return `partition ${this.partitionId} has moved on from epoch ${this.epoch}`
  }
}

/** No node that owns the queue could be reached in time. A request with the same run ids may be sent again. */
export class ClusterUnavailable
  extends Schema.TaggedError<ClusterUnavailable>("@orrery/core/ClusterUnavailable")("ClusterUnavailable", {
    operation: Schema.String,
    reason: Schema.String
  })
{
  override get message() {
    return `cluster unavailable in ${this.operation}: ${this.reason}`
  }
}

/**
 * The attempt may not end its run in a transaction: another attempt holds the run, it has ended, or the start of this one has
 * not been recorded in time. The transaction was rolled back, and whatever the handler ends with does not count.
 */
export class AttemptFenced extends Schema.TaggedError<AttemptFenced>("@orrery/core/AttemptFenced")("AttemptFenced", {
  runId: RunId,
  attempt: Schema.Number,
  reason: Schema.String
}) {
  override get message() {
    return `attempt ${this.attempt} of run ${this.runId} may not end it: ${this.reason}`
  }
}

/** A limiter did not let through what was asked, in time. It was not done; asking again may help. */
export class LimitNotGranted
  extends Schema.TaggedError<LimitNotGranted>("@orrery/core/LimitNotGranted")("LimitNotGranted", {
    limiter: Schema.String,
    /** The limit is used up; the store of limits cannot be asked; as many wait here already as may. */
    reason: Schema.Literal("limit", "unavailable", "waiters"),
    detail: Schema.String
  })
{
  override get message() {
    return `limiter ${this.limiter} granted nothing (${this.reason}): ${this.detail}`
  }
}

/** The lease of a permit ended while it was used: what was done with it was interrupted, as another may hold it now. */
export class PermitLost extends Schema.TaggedError<PermitLost>("@orrery/core/PermitLost")("PermitLost", {
  limiter: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `a permit of ${this.limiter} was lost: ${this.reason}`
  }
}

/** The settings of a queue have been changed since they were seen. Nothing was done: look again. */
export class RevisionStale extends Schema.TaggedError<RevisionStale>("@orrery/core/RevisionStale")("RevisionStale", {
  namespace: Schema.String,
  queue: Schema.String,
  expected: Schema.Number,
  actual: Schema.Number
}) {
  override get message() {
    return `settings of queue ${this.namespace}|${this.queue} are at revision ${this.actual}, not ${this.expected}`
  }
}

/** What may go wrong with an enqueue. Only `ClusterUnavailable` leaves open whether it happened. */
export const EnqueueError = Schema.Union(
  PayloadInvalid,
  PayloadTooLarge,
  InvalidRequest,
  Overloaded,
  QueueFull,
  QuotaExceeded,
  ClusterUnavailable
)
export type EnqueueError = typeof EnqueueError.Type

/** What may go wrong with a redrive. Whatever it was, the same call may be made again. */
export const RedriveError = Schema.Union(RunNotFound, NotRedrivable, ...EnqueueError.members)
export type RedriveError = typeof RedriveError.Type

/** What may go wrong with an edit. Only `ClusterUnavailable` leaves open whether it happened. */
export const EditError = Schema.Union(
  RunNotFound,
  RunNotWaiting,
  PayloadInvalid,
  PayloadTooLarge,
  InvalidRequest,
  Overloaded,
  ClusterUnavailable
)
export type EditError = typeof EditError.Type
