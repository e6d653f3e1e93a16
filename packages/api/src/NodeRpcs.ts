/**
 * The data plane of a node: what clients, workers and other nodes call, over TCP with msgpack. What runs travel in goes
 * beside it on the same connection (`FrameCalls`).
 *
 * Every call may come twice (a connection broke and the caller asks again), so every handler is idempotent. A session
 * belongs to the connection on which it was attached and ends with it.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import {
  ClusterUnavailable,
  EditError,
  EnqueueError,
  InvalidRequest,
  RedriveError,
  RunNotFound
} from "@orrery/core/Errors"
import { Explanation } from "@orrery/core/Explanation"
import { LimitAnswer, LimitAsk } from "@orrery/core/LimitAsk"
import { LimitsUnavailable } from "@orrery/core/LimitStore"
import { Name } from "@orrery/core/Name"
import { QueueCall, QueueRecord } from "@orrery/core/QueueSettings"
import { queuesLimitMax } from "@orrery/core/QueueSettingsStore"
import { QueueError } from "@orrery/core/Queues"
import { Run } from "@orrery/core/Run"
import { Edited, RunEdit } from "@orrery/core/RunEdit"
import { RunId } from "@orrery/core/RunId"
import { NoteReport, RunProgress } from "@orrery/core/RunNotes"
import { RunState } from "@orrery/core/RunState"
import { listLimitMax, noSameRuns, type SameRuns } from "@orrery/core/Runs"
import { Schedule, Tick } from "@orrery/core/schedule/ScheduleDefinition"
import { ScheduleCall, ScheduleError, ScheduleNotFound } from "@orrery/core/schedule/Schedules"
import * as ScheduleStore from "@orrery/core/schedule/ScheduleStore"
import * as Watch from "@orrery/core/Watch"
import { Schema } from "effect"
import { AttemptFrame, OutcomeAnswers, rowsMax, UnknownFrameVersion } from "./Frames.js"

/** Longest wait of one `AwaitFinal` or `ForwardAwait`: the caller asks again after it. */
export const awaitMsMax = 20_000
/** Most nodes in one answer. */
export const nodesMax = 1_000
const nodeIdLengthMax = 64
/** Most partitions in one `Nudge`. */
export const nudgesMax = 1_000
/** Most partitions in one `Departs`. */
export const departsMax = 1_000
const featuresMax = 100
/** Longest wait for the answer to `Leaving`, ms. */
export const leavingMsMax = 20_000

/** The partition lives elsewhere: find its owner again. Nothing was done. */
export class NotOwner extends Schema.TaggedError<NotOwner>("@orrery/api/NotOwner")("NotOwner", {
  namespace: Schema.String,
  queue: Schema.String,
  partition: Schema.Number
}) {
  override get message() {
    return `partition ${this.namespace}|${this.queue}|${this.partition} is owned by another node`
  }
}

/** The session has ended: attach again, announce, report again. Nothing was done. */
export class SessionUnknown extends Schema.TaggedError<SessionUnknown>("@orrery/api/SessionUnknown")("SessionUnknown", {
  sessionId: Schema.Number
}) {
  override get message() {
    return `session ${this.sessionId} is not known to this node`
  }
}

const Count = Schema.Int.pipe(Schema.nonNegative())

export const PartitionName = Schema.Struct({ namespace: Name, queue: Name, partition: Count })

/** A live node and where its data plane listens, `host:port`. */
export const NodeAddress = Schema.Struct({ nodeId: Schema.String, address: Schema.String })
export type NodeAddress = typeof NodeAddress.Type

/** How a node is. What it cannot do its work for now is in `notReady`; empty: it is ready. */
export const NodeHealth = Schema.Struct({
  nodeId: Schema.String,
  notReady: Schema.Array(Schema.String),
  /** Ms since the shard locks were last confirmed. */
  locksConfirmedMsAgo: Schema.Number,
  /** Ms for which commits have been waiting without any being answered; 0: none waits. */
  commitsWaitingMs: Schema.Number,
  /** Longest stand-still of the event loop lately, ms. */
  lagMs: Schema.Number,
  heapPercent: Schema.Number,
  partitions: Count,
  workers: Count,
  /** Runs that nothing brings on. More than 0 is a bug. */
  unaccounted: Count,
  /** What it remembers of its database. */
  database: Schema.NullOr(Schema.Struct({ incarnation: Schema.String, epochs: Schema.Number })),
  /** How hints travel between nodes. Not needed for its work. `null`: there is nothing, or a node of an earlier release. */
  signals: Schema.optionalWith(
    Schema.NullOr(Schema.Struct({ kind: Schema.String, isUp: Schema.Boolean, detail: Schema.String })),
    { default: () => null }
  ),
  /** Of its cache of ends, since it started, as `EndCounters`. `null`: it has none, or a node of an earlier release. */
  ends: Schema.optionalWith(
    Schema.NullOr(Schema.Struct({ hits: Count, misses: Count, refused: Count, kept: Count, over: Count })),
    { default: () => null }
  )
})
export type NodeHealth = typeof NodeHealth.Type

const optionalExact = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/**
 * The rows that were not stored, by their index; the others are durable. Of `same` no run was made: another one stands for them,
 * which is durable. A node of an earlier release makes none of those, and lets none through.
 */
export const EnqueueAnswer = Schema.Struct({
  failures: Schema.Array(Schema.Struct({ index: Count, error: EnqueueError })).pipe(Schema.maxItems(rowsMax)),
  same: optionalExact(Schema.Array(Schema.Struct({ index: Count, id: RunId })).pipe(Schema.maxItems(rowsMax)))
})
export type EnqueueAnswer = typeof EnqueueAnswer.Type

/** By the ids of the requests of one batch. */
export const sameRuns = (requests: ReadonlyArray<{ readonly id: RunId }>, same: EnqueueAnswer["same"]): SameRuns =>
  same === undefined ? noSameRuns : new Map(same.map(({ id, index }) => [requests[index]!.id, id]))

export const RunFilter = Schema.Struct({
  namespace: optionalExact(Name),
  queue: optionalExact(Name),
  task: optionalExact(Name),
  state: optionalExact(RunState),
  before: optionalExact(RunId),
  limit: Schema.Int.pipe(Schema.between(1, listLimitMax))
})

const Redriven = Schema.Struct({ id: RunId, isNew: Schema.Boolean })
const CancelAnswer = Schema.Literal("cancelled", "requested", "already-final")
const WaitMs = Schema.Int.pipe(Schema.between(0, awaitMsMax))
const WatchCursor = Schema.String.pipe(Schema.maxLength(Watch.cursorLengthMax))
const SessionId = Count
const RunError = Schema.Union(RunNotFound, ClusterUnavailable)
const SessionFailure = Schema.Union(SessionUnknown, ClusterUnavailable)
const FrameFailure = Schema.Union(SessionUnknown, UnknownFrameVersion, ClusterUnavailable)

const client = [
  Rpc.make("Get", { payload: { id: RunId }, success: Run, error: RunError }),
  Rpc.make("List", { payload: { filter: RunFilter }, success: Schema.Array(Run), error: ClusterUnavailable }),
  /** The run once it is final; `null` when it is not after `waitMs`. */
  Rpc.make("AwaitFinal", { payload: { id: RunId, waitMs: WaitMs }, success: Schema.NullOr(Run), error: RunError }),
  Rpc.make("Cancel", { payload: { id: RunId }, success: CancelAnswer, error: RunError }),
  /** Why it is where it is. A node of an earlier release does not know it. */
  Rpc.make("Explain", { payload: { id: RunId }, success: Explanation, error: RunError }),
  /** Makes a dead letter anew. A node of an earlier release does not know it. */
  Rpc.make("Redrive", {
    payload: { id: RunId, payload: optionalExact(Schema.String) },
    success: Redriven,
    error: RedriveError
  }),
  /** Changes a run that waits; answered once that is committed. A node of an earlier release does not know it, nor the next one. */
  Rpc.make("Edit", { payload: { id: RunId, edit: RunEdit }, success: Edited, error: EditError }),
  /** Answers how many of them were final, and are gone. */
  Rpc.make("DeleteFinal", {
    payload: { ids: Schema.Array(RunId).pipe(Schema.maxItems(listLimitMax)) },
    success: Count,
    error: Schema.Union(InvalidRequest, ClusterUnavailable)
  }),
  /** What it has told while it ran; `null`: nothing. A node of an earlier release does not know it. */
  Rpc.make("Progress", { payload: { id: RunId }, success: Schema.NullOr(RunProgress), error: ClusterUnavailable }),
  /** Polls of watches. A node of an earlier release knows neither. */
  Rpc.make("RunChanges", {
    payload: { id: RunId, after: WatchCursor, waitMs: WaitMs },
    success: Watch.RunChanges,
    error: RunError
  }),
  Rpc.make("QueueChanges", {
    payload: { namespace: Name, queue: Name, after: WatchCursor, waitMs: WaitMs },
    success: Watch.QueueChanges,
    error: ClusterUnavailable
  }),
  /** All live nodes, the answering one included. */
  Rpc.make("Nodes", { success: Schema.Array(NodeAddress).pipe(Schema.maxItems(nodesMax)), error: ClusterUnavailable }),
  /** Answers with the node's id, from memory: it tells a live event loop, nothing more. */
  Rpc.make("Ping", { success: Schema.String }),
  /**
   * Answers when the node stops, or cannot do its work while another can, with true: callers go to another one, for it still
   * answers what it can. False after `leavingMsMax`: ask again. A node of an earlier release does not know it.
   */
  Rpc.make("Leaving", { success: Schema.Boolean }),
  /** From memory, as `Ping`. A node of an earlier release does not know it. */
  Rpc.make("Health", { success: NodeHealth }),
  /** Of limits that the cluster keeps, for handlers of a process without Redis. A node of an earlier release does not know it. */
  Rpc.make("AskLimit", { payload: { ask: LimitAsk }, success: LimitAnswer, error: LimitsUnavailable })
] as const

const ScheduleId = Schema.String.pipe(Schema.maxLength(401))
const ScheduleLimit = Schema.Int.pipe(Schema.between(1, ScheduleStore.listLimitMax))

const schedules = [
  /** Answered by the owner of the schedule, once it is committed. */
  Rpc.make("ScheduleCall", { payload: { call: ScheduleCall }, success: Schedule, error: ScheduleError }),
  Rpc.make("ScheduleGet", {
    payload: { id: ScheduleId },
    success: Schedule,
    error: Schema.Union(ScheduleNotFound, ClusterUnavailable)
  }),
  Rpc.make("ScheduleList", {
    payload: {
      filter: Schema.Struct({
        namespace: optionalExact(Name),
        after: optionalExact(ScheduleId),
        limit: ScheduleLimit
      })
    },
    success: Schema.Array(Schedule),
    error: ClusterUnavailable
  }),
  Rpc.make("ScheduleTicks", {
    payload: { id: ScheduleId, limit: ScheduleLimit },
    success: Schema.Array(Tick),
    error: ClusterUnavailable
  })
] as const

/** A node of an earlier release does not know these. */
const queues = [
  /** Answered once it is committed. */
  Rpc.make("QueueCall", { payload: { call: QueueCall }, success: QueueRecord, error: QueueError }),
  Rpc.make("QueueGet", { payload: { namespace: Name, queue: Name }, success: QueueRecord, error: ClusterUnavailable }),
  Rpc.make("QueueList", {
    payload: {
      filter: Schema.Struct({
        namespace: optionalExact(Name),
        after: optionalExact(Schema.String.pipe(Schema.maxLength(401))),
        limit: Schema.Int.pipe(Schema.between(1, queuesLimitMax))
      })
    },
    success: Schema.Array(QueueRecord),
    error: ClusterUnavailable
  })
] as const

const worker = [
  /** Answers with those of `held` that the owner has given up. */
  Rpc.make("Announce", {
    payload: { sessionId: SessionId, partitionId: Count, held: AttemptFrame },
    success: AttemptFrame,
    error: FrameFailure
  }),
  /** What this node understands beyond the first release. A node of that release does not know the call. */
  Rpc.make("Features", { success: Schema.Array(Schema.String).pipe(Schema.maxItems(featuresMax)) }),
  /** Answers with the slots that attempts take at that moment. */
  Rpc.make("SetCredit", {
    // A worker of an earlier release does not say how many may wait at it: none.
    payload: Schema.Struct({
      sessionId: SessionId,
      credit: Count,
      ahead: Schema.optionalWith(Count, { default: () => 0 }),
      /** Whether it can read assignments with a trace. */
      trace: Schema.optionalWith(Schema.Boolean, { default: () => false }),
      /** All that the worker has; 0: it knows no attempts that take more than one. */
      slots: Schema.optionalWith(Count, { default: () => 0 })
    }),
    success: Count,
    error: SessionFailure
  }),
  /** Answers in the order of the reports. A node of an earlier release does not know it, nor the next one. */
  Rpc.make("Note", {
    payload: { sessionId: SessionId, reports: Schema.Array(NoteReport).pipe(Schema.maxItems(rowsMax)) },
    success: OutcomeAnswers,
    error: SessionFailure
  }),
  /** Of one attempt: what an earlier one of its run has left. */
  Rpc.make("Checkpoint", {
    payload: { sessionId: SessionId, attempt: AttemptFrame },
    success: Schema.NullOr(Schema.String),
    error: FrameFailure
  }),
  Rpc.make("Heartbeat", { payload: { sessionId: SessionId }, error: SessionUnknown }),
  /** Ends the session: attempts still out are handed back as interrupted, not as crashed. */
  Rpc.make("Goodbye", { payload: { sessionId: SessionId }, error: SessionUnknown })
] as const

const node = [
  /** Whether this node reaches that one now. A node of an earlier release does not know the call, nor the next one. */
  Rpc.make("Reaches", {
    payload: { nodeId: Schema.String.pipe(Schema.maxLength(nodeIdLengthMax)) },
    success: Schema.Boolean
  }),
  /** A hint: the members have changed, look now. */
  Rpc.make("MembersChanged"),
  /** The caller's hints may not be heard: watchers look at the rows. A node of an earlier release does not know it. */
  Rpc.make("HintsUnheard"),
  /**
   * A hint: that node stops, and serves these partitions until they have another owner: go on asking it for them. A node of an
   * earlier release does not know it, and waits for the new owner.
   */
  Rpc.make("Departs", {
    payload: {
      nodeId: Schema.String.pipe(Schema.maxLength(nodeIdLengthMax)),
      partitions: Schema.Array(PartitionName).pipe(Schema.maxItems(departsMax))
    }
  }),
  Rpc.make("ForwardRedrive", {
    payload: { partition: PartitionName, id: RunId, payload: optionalExact(Schema.String) },
    success: Redriven,
    error: Schema.Union(NotOwner, ...RedriveError.members)
  }),
  /** A hint: the inbox has rows of these partitions. `forwarded`: by a node, which takes this one for their owner. */
  Rpc.make("Nudge", {
    payload: { partitions: Schema.Array(PartitionName).pipe(Schema.maxItems(nudgesMax)), forwarded: Schema.Boolean }
  }),
  /** A hint: actors of the queue here go by these settings now. A node of an earlier release does not know it. */
  Rpc.make("QueueSettingsChanged", { payload: { record: QueueRecord } }),
  Rpc.make("ForwardCancel", {
    payload: { partition: PartitionName, id: RunId },
    success: CancelAnswer,
    error: Schema.Union(NotOwner, RunNotFound, ClusterUnavailable)
  }),
  Rpc.make("ForwardEdit", {
    payload: { partition: PartitionName, id: RunId, edit: RunEdit },
    success: Edited,
    error: Schema.Union(NotOwner, ...EditError.members)
  }),
  Rpc.make("ForwardExplain", {
    payload: { partition: PartitionName, id: RunId },
    success: Explanation,
    error: Schema.Union(NotOwner, RunNotFound, ClusterUnavailable)
  }),
  Rpc.make("ForwardAwait", {
    payload: { partition: PartitionName, id: RunId, waitMs: WaitMs },
    success: Schema.NullOr(Run),
    error: Schema.Union(NotOwner, RunNotFound, ClusterUnavailable)
  })
] as const

/**
 * Serve it with `disableFatalDefects: true`, else one defect kills every call of the connection; on a `NodeListener`;
 * with `NodeConnection.serialization`.
 */
export class NodeRpcs extends RpcGroup.make(...client, ...schedules, ...queues, ...worker, ...node) {}
