/**
 * The hot frames between clients, nodes and workers: enqueue rows, assignments, outcome reports.
 *
 * Every run passes through one of these several times, so they are no Schema structs (measured: 23 to 27k runs/s with
 * structs, 66k with one checked frame per batch; architecture.md section 4) but arrays of scalars with the version
 * number first. What comes off a socket is only unpacked msgpack; the guards here look at every value once (type,
 * length, range) and never throw. `decode…` takes only what a guard has let through.
 *
 * A peer of another release may send another version: its frame passes the guard unseen and is refused by `decode…`
 * with the typed `UnknownFrameVersion`, so that the other side can tell it from garbage (a defect of that one call).
 *
 * Request frame   [1, [[namespace, queue, task, policy], …], [[id, kind, payload, priority, at?, ms, resend?, keys?, trace?,
 *                 identity?], …]] where `kind` is an index into the first list: the rows of a batch share few of them. The last
 *                 three are there where a run has any; those that it lacks before one that it has are null
 * Worker frame    [1, tag, …]: see `encodeToWorker`
 * Attempt frame   [1, [[partitionId, runId, attempt, lease], …]]
 * Outcome frame   [1, [[partitionId, runId, attempt, lease, tag, …], …]]: see `outcomeRow`. A delay (the last of a failure,
 *                 or a snooze) is sent only to a node that says it knows them (`outcomeDelays`)
 */
import { type Outcome, priorityMax, RunFailure } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { slotsPerRunMax } from "@orrery/core/Need"
import { keyLengthMax, keysLengthMax } from "@orrery/core/RunKeys"
import { delayMsMax, timeoutMsMax } from "@orrery/core/RunRequest"
import type { Assignment, AttemptRef, OutcomeAnswer, OutcomeReport, ToWorker } from "@orrery/core/WorkerProtocol"
import { Either, Schema } from "effect"

export const frameVersion = 1
/** Rows in one frame. An encoder does not check it: the caller cuts its batches smaller than that. */
export const rowsMax = 10_000
/** Longest payload or result in a frame, in characters: far above what a cluster accepts, below a socket's bound. */
export const textLengthMax = 4 * 1024 * 1024
const nameLengthMax = 200
const policyLengthMax = 16_384
const failureTextLengthMax = 65_536
const idLength = 36
/** Longest `traceparent`. */
const traceLength = 55
/** Longest body of a frame of another version, in values at the top. */
const foreignLengthMax = 16

/** The frame is of a version this release cannot read. Nothing of it was used. */
export class UnknownFrameVersion
  extends Schema.TaggedError<UnknownFrameVersion>("@orrery/api/UnknownFrameVersion")("UnknownFrameVersion", {
    version: Schema.Number,
    supported: Schema.Number
  })
{
  override get message() {
    return `frame version ${this.version} is unknown here (${this.supported} is supported)`
  }
}

declare const kind: unique symbol
/** A frame a guard has let through. Read it by `decode…` only. */
export type Frame<Kind extends string> = readonly [version: number, ...body: ReadonlyArray<unknown>] & {
  readonly [kind]: Kind
}
export type RequestFrame = Frame<"requests">
export type ToWorkerFrame = Frame<"toWorker">
export type AttemptFrame = Frame<"attempts">
export type OutcomeFrame = Frame<"outcomes">

/** The node has ended the session. */
export interface Ended {
  readonly _tag: "ended"
}

/** Nodes have come or gone: a worker should read the list of nodes, and attach to new ones before they own queues. */
export interface NodesChanged {
  readonly _tag: "nodes"
}

// --- guards ---------------------------------------------------------------------------------------------------------

const isInt = (value: unknown, min: number, max: number): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max
const isCount = (value: unknown): value is number => isInt(value, 0, Number.MAX_SAFE_INTEGER)
const isText = (value: unknown, lengthMax: number): value is string =>
  typeof value === "string" && value.length <= lengthMax
const isId = (value: unknown): boolean => typeof value === "string" && value.length === idLength
const isBit = (value: unknown): boolean => value === 0 || value === 1

const isRows = (value: unknown, isRow: (row: ReadonlyArray<unknown>) => boolean): boolean => {
  if (!Array.isArray(value) || value.length > rowsMax) return false
  for (let index = 0; index < value.length; index++) {
    const row: unknown = value[index]
    if (!Array.isArray(row) || !isRow(row)) return false
  }
  return true
}

const guard = <Kind extends string>(isBody: (frame: ReadonlyArray<unknown>) => boolean) =>
(
  value: unknown
): value is Frame<Kind> => {
  if (!Array.isArray(value) || value.length === 0) return false
  if (value[0] === frameVersion) return isBody(value)
  return isCount(value[0]) && value.length <= foreignLengthMax
}

const isKindRow = (row: ReadonlyArray<unknown>) =>
  row.length === 4 && isText(row[0], nameLengthMax) && isText(row[1], nameLengthMax) && isText(row[2], nameLengthMax)
  && isText(row[3], policyLengthMax)

/** What few runs have is at the end of their rows. */
const areExtras = (row: ReadonlyArray<unknown>): boolean => {
  if (row.length === 7) return true
  if (row.length === 8) return isText(row[7], keysLengthMax)
  if (row[7] !== null && !isText(row[7], keysLengthMax)) return false
  if (row.length === 9) return isText(row[8], traceLength)
  return row.length === 10 && (row[8] === null || isText(row[8], traceLength)) && isText(row[9], keyLengthMax)
}

const isRequestRow = (kinds: number) => (row: ReadonlyArray<unknown>) =>
  areExtras(row) && isId(row[0]) &&
  isInt(row[1], 0, kinds - 1) && isText(row[2], textLengthMax)
  && isInt(row[3], 0, priorityMax) && isBit(row[4]) && typeof row[5] === "number" && Number.isFinite(row[5])
  && isBit(row[6])

const isAttemptRow = (row: ReadonlyArray<unknown>) => row.length === 4 && isAttempt(row)
const isAttempt = (row: ReadonlyArray<unknown>) =>
  isCount(row[0]) && isId(row[1]) && isInt(row[2], 0, 2 ** 31) && isCount(row[3])

/** A trace, and the slots it takes where that is more than one. */
const hasExtras = (row: ReadonlyArray<unknown>): boolean =>
  row.length === 7 || (row.length === 8 && isText(row[7], traceLength)) ||
  (row.length === 9 && (row[7] === null || isText(row[7], traceLength)) && isInt(row[8], 2, slotsPerRunMax))

const isAssignmentRow = (row: ReadonlyArray<unknown>) =>
  hasExtras(row) && isAttempt(row)
  && isText(row[4], nameLengthMax) && isText(row[5], textLengthMax) && isInt(row[6], 0, timeoutMsMax)

const isOutcomeRow = (row: ReadonlyArray<unknown>) => {
  if (!isAttempt(row)) return false
  switch (row[4]) {
    case tags.success:
      return row.length === 6 && isText(row[5], textLengthMax)
    case tags.failure:
      return (row.length === 10 || (row.length === 11 && isInt(row[10], 0, delayMsMax))) &&
        isInt(row[5], 0, failureKinds.length - 1) && isText(row[6], failureTextLengthMax)
        && isText(row[7], failureTextLengthMax) && (row[8] === null || isText(row[8], textLengthMax)) && isBit(row[9])
    case tags.cancelled:
    case tags.interrupted:
      return row.length === 5
    case tags.snooze:
      return row.length === 6 && isInt(row[5], 0, delayMsMax)
    default:
      return false
  }
}

const isToWorkerBody = (frame: ReadonlyArray<unknown>) => {
  switch (frame[1]) {
    case "assign":
      return frame.length === 3 && isRows(frame[2], isAssignmentRow)
    case "cancel":
      return frame.length === 3 && isRows(frame[2], isAttemptRow)
    case "owned":
      return frame.length === 5 && isCount(frame[2]) && isCount(frame[3]) && isCount(frame[4])
    case "hungry":
      return isBit(frame[2]) && (frame.length === 3 || (frame.length === 4 && isInt(frame[3], 2, slotsPerRunMax)))
    case "nodes":
    case "ended":
      return frame.length === 2
    default:
      return false
  }
}

export const isRequestFrame = guard<"requests">((frame) =>
  frame.length === 3 && isRows(frame[1], isKindRow)
  && isRows(frame[2], isRequestRow((frame[1] as ReadonlyArray<unknown>).length))
)
export const isToWorkerFrame = guard<"toWorker">(isToWorkerBody)
export const isAttemptFrame = guard<"attempts">((frame) => frame.length === 2 && isRows(frame[1], isAttemptRow))
export const isOutcomeFrame = guard<"outcomes">((frame) => frame.length === 2 && isRows(frame[1], isOutcomeRow))
export const isOutcomeAnswers = (value: unknown): value is ReadonlyArray<OutcomeAnswer> =>
  Array.isArray(value) && value.length <= rowsMax
  && value.every((answer) => answer === "accepted" || answer === "stale" || answer === "not-owner")

export const RequestFrame = Schema.declare(isRequestFrame, { identifier: "RequestFrame" })
export const ToWorkerFrame = Schema.declare(isToWorkerFrame, { identifier: "ToWorkerFrame" })
export const AttemptFrame = Schema.declare(isAttemptFrame, { identifier: "AttemptFrame" })
export const OutcomeFrame = Schema.declare(isOutcomeFrame, { identifier: "OutcomeFrame" })
export const OutcomeAnswers = Schema.declare(isOutcomeAnswers, { identifier: "OutcomeAnswers" })

// --- codecs ---------------------------------------------------------------------------------------------------------

/** Their places go over the wire: new ones are added at the end. */
const failureKinds = RunFailure.fields.kind.literals
const tags = { success: 0, failure: 1, cancelled: 2, interrupted: 3, snooze: 4 } as const

/** Feature of a node: it reads the delays of outcomes. One that does not name it is of an earlier release. */
export const outcomeDelays = "outcome-delays"

/** What the guards have made sure of. */
type Bit = 0 | 1
type KindRow = readonly [namespace: string, queue: string, task: string, policy: string]
type RequestRow = readonly [
  id: RunId,
  kind: number,
  payload: string,
  priority: number,
  at: Bit,
  ms: number,
  resend: Bit,
  keys?: string | null,
  trace?: string | null,
  identity?: string
]
type AttemptRow = readonly [partitionId: number, runId: RunId, attempt: number, lease: number]
type AssignmentRow = readonly [
  ...AttemptRow,
  task: string,
  payload: string,
  timeoutMs: number,
  trace?: string | null,
  slots?: number
]
type OutcomeRow =
  | readonly [...AttemptRow, tag: 0, result: string]
  | readonly [
    ...AttemptRow,
    tag: 1,
    kind: number,
    name: string,
    message: string,
    error: string | null,
    retryable: Bit,
    retryAfterMs?: number
  ]
  | readonly [...AttemptRow, tag: 2 | 3]
  | readonly [...AttemptRow, tag: 4, delayMs: number]
interface Body {
  readonly requests: readonly [ReadonlyArray<KindRow>, ReadonlyArray<RequestRow>]
  readonly attempts: readonly [ReadonlyArray<AttemptRow>]
  readonly outcomes: readonly [ReadonlyArray<OutcomeRow>]
  readonly toWorker:
    | readonly ["assign", ReadonlyArray<AssignmentRow>]
    | readonly ["cancel", ReadonlyArray<AttemptRow>]
    | readonly ["owned", partitionId: number, expects: number, epoch: number]
    | readonly ["hungry", Bit, need?: number]
    | readonly ["nodes"]
    | readonly ["ended"]
}

const frameOf = <Kind extends keyof Body>(...body: Body[Kind]) => [frameVersion, ...body] as unknown as Frame<Kind>

const decoder =
  <Kind extends keyof Body, A>(read: (...body: Body[Kind]) => A) =>
  (frame: Frame<Kind>): Either.Either<A, UnknownFrameVersion> =>
    frame[0] === frameVersion
      ? Either.right(read(...frame.slice(1) as unknown as Body[Kind]))
      : Either.left(new UnknownFrameVersion({ version: frame[0], supported: frameVersion }))

const bit = (value: boolean): Bit => value ? 1 : 0

export const encodeRequests = (requests: ReadonlyArray<RunRequest>): RequestFrame => {
  const kinds: Array<KindRow> = []
  const known = new Map<string, number>()
  const rows = requests.map((request): RequestRow => {
    const { id, identity, keys, namespace, payload, policy, priority, queue, resend, task, trace, when } = request
    // A NUL is in no valid name, and requests with invalid ones are not sent.
    const key = `${namespace}\u0000${queue}\u0000${task}\u0000${policy}`
    let at = known.get(key)
    if (at === undefined) {
      at = kinds.push([namespace, queue, task, policy]) - 1
      known.set(key, at)
    }
    if (identity !== undefined) {
      return [id, at, payload, priority, bit(when._tag === "at"), when.ms, bit(resend), keys, trace ?? null, identity]
    }
    // Sent again without it: the first time it may have met a node of an earlier release, which cannot read it.
    if (trace !== undefined && !resend) {
      return [id, at, payload, priority, bit(when._tag === "at"), when.ms, bit(resend), keys, trace]
    }
    return keys === null
      ? [id, at, payload, priority, bit(when._tag === "at"), when.ms, bit(resend)]
      : [id, at, payload, priority, bit(when._tag === "at"), when.ms, bit(resend), keys]
  })
  return frameOf<"requests">(kinds, rows)
}

export const decodeRequests = decoder<"requests", ReadonlyArray<RunRequest>>((kinds, rows) =>
  rows.map(([id, kind, payload, priority, at, ms, resend, keys = null, trace, identity]) => {
    const [namespace, queue, task, policy] = kinds[kind]!
    const when = { _tag: at === 1 ? "at" as const : "delay" as const, ms }
    const request = {
      id,
      namespace,
      queue,
      task,
      payload,
      priority,
      when,
      policy,
      keys,
      trace: trace ?? undefined,
      resend: resend === 1
    }
    return identity === undefined ? request : { ...request, identity }
  })
)

const attemptRow = (ref: AttemptRef): AttemptRow => [ref.partitionId, ref.runId, ref.attempt, ref.lease]
const attemptOf = ([partitionId, runId, attempt, lease]: AttemptRow): AttemptRef => ({
  partitionId,
  runId,
  attempt,
  lease
})
const assignmentRow = (
  each: Assignment
): AssignmentRow => {
  const { attempt, lease, partitionId, payload, runId, slots, task, timeoutMs, trace } = each
  if (slots !== undefined) return [partitionId, runId, attempt, lease, task, payload, timeoutMs, trace ?? null, slots]
  return trace === undefined
    ? [partitionId, runId, attempt, lease, task, payload, timeoutMs]
    : [partitionId, runId, attempt, lease, task, payload, timeoutMs, trace]
}
const assignmentOf = (
  [partitionId, runId, attempt, lease, task, payload, timeoutMs, trace, slots]: AssignmentRow
): Assignment => ({
  partitionId,
  runId,
  task,
  payload,
  attempt,
  lease,
  timeoutMs,
  trace: trace ?? undefined,
  slots
})

export const encodeAttempts = (refs: ReadonlyArray<AttemptRef>): AttemptFrame =>
  frameOf<"attempts">(refs.map(attemptRow))
export const decodeAttempts = decoder<"attempts", ReadonlyArray<AttemptRef>>((rows) => rows.map(attemptOf))

export const encodeToWorker = (message: Ended | NodesChanged | ToWorker): ToWorkerFrame => {
  switch (message._tag) {
    case "assign":
      return frameOf<"toWorker">("assign", message.assignments.map(assignmentRow))
    case "cancel":
      return frameOf<"toWorker">("cancel", message.attempts.map(attemptRow))
    case "owned":
      return frameOf<"toWorker">("owned", message.partitionId, message.expects, message.epoch)
    case "hungry":
      return message.need === undefined
        ? frameOf<"toWorker">("hungry", bit(message.hungry))
        : frameOf<"toWorker">("hungry", bit(message.hungry), message.need)
    case "nodes":
    case "ended":
      return frameOf<"toWorker">(message._tag)
  }
}

export const decodeToWorker = decoder<"toWorker", Ended | NodesChanged | ToWorker>((...body) => {
  switch (body[0]) {
    case "assign":
      return { _tag: "assign", assignments: body[1].map(assignmentOf) }
    case "cancel":
      return { _tag: "cancel", attempts: body[1].map(attemptOf) }
    case "owned":
      return { _tag: "owned", partitionId: body[1], expects: body[2], epoch: body[3] }
    case "hungry":
      return body[2] === undefined
        ? { _tag: "hungry", hungry: body[1] === 1 }
        : { _tag: "hungry", hungry: body[1] === 1, need: body[2] }
    case "nodes":
    case "ended":
      return { _tag: body[0] }
  }
})

const outcomeRow = (report: OutcomeReport): OutcomeRow => {
  const { outcome } = report
  const ref = attemptRow(report)
  if (outcome._tag === "success") return [...ref, tags.success, outcome.result]
  if (outcome._tag === "snooze") return [...ref, tags.snooze, outcome.delayMs]
  if (outcome._tag !== "failure") return [...ref, tags[outcome._tag]]
  const { error, kind: why, message, tag } = outcome.failure
  const kind = failureKinds.indexOf(why)
  const { retryAfterMs, retryable } = outcome
  return retryAfterMs === undefined
    ? [...ref, tags.failure, kind, tag, message, error ?? null, bit(retryable)]
    : [...ref, tags.failure, kind, tag, message, error ?? null, bit(retryable), retryAfterMs]
}

/** Whether it says when to begin again. */
export const hasDelay = ({ outcome }: OutcomeReport): boolean =>
  outcome._tag === "snooze" || (outcome._tag === "failure" && outcome.retryAfterMs !== undefined)

/** For a node that knows no delays: tried again by the policy. A snooze is a failed attempt there. */
export const withoutDelay = (report: OutcomeReport): OutcomeReport => {
  const { outcome } = report
  if (outcome._tag === "failure" && outcome.retryAfterMs !== undefined) {
    const { retryAfterMs: _, ...rest } = outcome
    return { ...report, outcome: rest }
  }
  if (outcome._tag !== "snooze") return report
  const message = `its queue is owned by an earlier release, which cannot put it off by ${outcome.delayMs} ms`
  const failure = { kind: "interrupted", tag: "Snoozed", message } as const
  return { ...report, outcome: { _tag: "failure", failure, retryable: true } }
}

const outcomeOf = (row: OutcomeRow): Outcome => {
  if (row[4] === tags.success) return { _tag: "success", result: row[5] }
  if (row[4] === tags.snooze) return { _tag: "snooze", delayMs: row[5] }
  if (row[4] !== tags.failure) return { _tag: row[4] === tags.cancelled ? "cancelled" : "interrupted" }
  const failure = { kind: failureKinds[row[5]]!, tag: row[6], message: row[7] }
  return {
    _tag: "failure",
    failure: row[8] === null ? failure : { ...failure, error: row[8] },
    retryable: row[9] === 1,
    ...row[10] === undefined ? {} : { retryAfterMs: row[10] }
  }
}

const reportOf = (row: OutcomeRow): OutcomeReport => ({
  partitionId: row[0],
  runId: row[1],
  attempt: row[2],
  lease: row[3],
  outcome: outcomeOf(row)
})

export const encodeOutcomes = (reports: ReadonlyArray<OutcomeReport>): OutcomeFrame =>
  frameOf<"outcomes">(reports.map(outcomeRow))
export const decodeOutcomes = decoder<"outcomes", ReadonlyArray<OutcomeReport>>((rows) => rows.map(reportOf))
