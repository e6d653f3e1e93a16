/** Why a run is where it is, as its owner sees it: derived when it is asked for, never stored. */
import { Schema } from "effect"
import { KeyOf } from "./QueueSettings.js"
import { inInbox, type Run, RunFailure } from "./Run.js"
import { RunId } from "./RunId.js"
import { isFinal, RunState } from "./RunState.js"

/** Most holders of a limit, and most runs held up by an ordered one, that are named. */
export const namedRunsMax = 20

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/** `null`: that of the whole queue. */
const LimitOf = Schema.NullOr(Schema.Struct({ name: Schema.String, key: Schema.String }))

/** Of a limit that spans queues: it is used up, or cannot be asked for. */
const SpanState = Schema.Literal("used", "unavailable")

const Count = Schema.Int.pipe(Schema.nonNegative())

/** Until it starts, ms: half of the times, and nine times of ten, it is no longer. */
export const Eta = Schema.Struct({ p50Ms: Schema.Number, p90Ms: Schema.Number })
export type Eta = typeof Eta.Type

export const Reason = Schema.Union(
  Schema.TaggedStruct("WaitingForTime", { until: Schema.Number }),
  /** An attempt did not succeed; the next one waits for its time. */
  Schema.TaggedStruct("Backoff", { until: Schema.Number, lastError: Schema.NullOr(RunFailure) }),
  /** The queue, or runs with this key of it. */
  Schema.TaggedStruct("Paused", {
    by: Schema.String,
    why: Schema.String,
    since: Schema.Number,
    key: optional(KeyOf)
  }),
  /**
   * No worker is attached that has a handler for the task; or, with `slots`, none that has as many slots as it takes: the largest has
   * `most`, and those of a release that knows of no such runs count as one.
   */
  Schema.TaggedStruct("NoWorker", { task: Schema.String, slots: optional(Count), most: optional(Count) }),
  /** Another run with its ordering key must end first. */
  Schema.TaggedStruct("WaitsForOrder", {
    key: Schema.String,
    behind: RunId,
    state: RunState,
    until: Schema.NullOr(Schema.Number),
    lastError: Schema.NullOr(RunFailure)
  }),
  /**
   * A concurrency limit is full; of a run of a backfill also `orrery.backfill`, the half that such runs may have (of the slots, or of
   * the queue's concurrency). `holders`: at most 20 of those that run. Where it spans queues, `running` and `holders` are those
   * of this partition; others have the rest.
   */
  Schema.TaggedStruct("Blocked", {
    limit: LimitOf,
    most: Count,
    running: Count,
    holders: Schema.Array(RunId),
    spans: optional(SpanState)
  }),
  /** `until: null`: as soon as a start that is decided has been made; or, where it spans queues, when there is room again. */
  Schema.TaggedStruct("RateLimited", {
    limit: LimitOf,
    until: Schema.NullOr(Schema.Number),
    spans: optional(SpanState)
  }),
  /**
   * `runs` others that may start come first, or more (`isAtLeast`); 0: a free slot is all it waits for. `eta`: by the starts of
   * the partition in the last two minutes; `null`: there were none. Turns of fairness keys are not foreseen.
   */
  Schema.TaggedStruct("Behind", { runs: Count, isAtLeast: Schema.Boolean, eta: Schema.NullOr(Eta) }),
  /** Enqueued in a transaction: its queue has yet to take it out of the inbox. */
  Schema.TaggedStruct("InInbox", {}),
  /** A change of it is on its way to the database. */
  Schema.TaggedStruct("BeingWritten", {}),
  Schema.TaggedStruct("Running", {
    worker: Schema.String,
    since: Schema.Number,
    attempt: Count,
    isCancelRequested: Schema.Boolean
  }),
  Schema.TaggedStruct("Final", { state: RunState, at: Schema.NullOr(Schema.Number) })
)
export type Reason = typeof Reason.Type

/** Ms in each, as far as the run's row tells. */
export const Spent = Schema.Struct({
  /** Before the present wait or attempt: earlier attempts and the waits between them, once there was more than one. */
  earlierMs: Schema.Number,
  waitingForTimeMs: Schema.Number,
  inLineMs: Schema.Number,
  runningMs: Schema.Number
})
export type Spent = typeof Spent.Type

/** Runs that an ordered run keeps waiting, by their key: the first few are named. */
export const HoldsUp = Schema.Struct({
  key: Schema.String,
  runs: Count,
  isAtLeast: Schema.Boolean,
  first: Schema.Array(RunId)
})
export type HoldsUp = typeof HoldsUp.Type

export const Explanation = Schema.Struct({
  runId: RunId,
  state: RunState,
  /** What keeps it from going on, or what it does. */
  reason: Reason,
  /** What else would keep it. */
  also: Schema.Array(Reason),
  holdsUp: optional(HoldsUp),
  spent: Spent,
  /** Ms since 1970 by the database clock. */
  at: Schema.Number
})
export type Explanation = typeof Explanation.Type

type Times = Pick<Run, "state" | "createdAt" | "scheduledAt" | "startedAt" | "finishedAt" | "attempt">

/** A run keeps the times of its last wait and attempt only. */
export const spentOf = (run: Times, now: number): Spent => {
  const { attempt, createdAt, finishedAt, startedAt, state } = run
  const end = finishedAt ?? now
  const began = (state === "running" || isFinal(state)) ? startedAt : null
  const isFirst = attempt <= (began === null ? 0 : 1)
  const due = Math.min(Math.max(run.scheduledAt, createdAt), end)
  const upTo = began ?? end
  return {
    earlierMs: isFirst ? 0 : Math.max(0, Math.min(due, upTo) - createdAt),
    waitingForTimeMs: isFirst ? Math.max(0, Math.min(due, upTo) - createdAt) : 0,
    inLineMs: Math.max(0, upTo - due),
    runningMs: began === null ? 0 : Math.max(0, end - began)
  }
}

/** Of a run that has no owner, since it has ended or is yet to come to its queue: nobody has to be asked. */
export const explainUnowned = (run: Run): Explanation | undefined => {
  const isOver = isFinal(run.state)
  if (!isOver && run.waitsFor !== inInbox) return undefined
  const at = run.finishedAt ?? run.createdAt
  const reason: Reason = isOver ? { _tag: "Final", state: run.state, at: run.finishedAt } : { _tag: "InInbox" }
  return { runId: run.id, state: run.state, reason, also: [], spent: spentOf(run, at), at }
}
