/**
 * The calls that runs travel in: enqueue and forward, a worker's attachment, outcome reports. Not calls of Effect RPC:
 * these are made for every batch, and there a call costs many times what it carries (docs/decisions/0008).
 *
 * Arguments and answers are msgpack of frames (`Frames`) and scalars, looked at by a guard on arrival. Typed errors
 * travel in the encoding of their schemas. Every call may come twice, so every handler is idempotent.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { isName } from "@orrery/core/Name"
import type { OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Option, Schema } from "effect"
import { Packr } from "msgpackr"
import {
  isOutcomeAnswers,
  isOutcomeFrame,
  isRequestFrame,
  isToWorkerFrame,
  type OutcomeFrame,
  type RequestFrame,
  rowsMax,
  type ToWorkerFrame,
  UnknownFrameVersion
} from "./Frames.js"
import { EnqueueAnswer, NotOwner, SessionUnknown } from "./NodeRpcs.js"

/** Most task names of one worker. */
export const tasksMax = 2_000

export interface FrameCall<Args extends ReadonlyArray<unknown>, A, E> {
  /** On the wire. */
  readonly code: number
  readonly name: string
  readonly isArgs: (value: unknown) => value is Args
  readonly encode: (answer: A) => unknown
  /** `undefined`: no answer of this call. */
  readonly decode: (value: unknown) => A | undefined
  readonly encodeFailure: (failure: E) => unknown
  /** `None`: no failure of this call. */
  readonly decodeFailure: (value: unknown) => Option.Option<E>
}

export interface Attachment {
  readonly leaseMs: number
  readonly sessionId: number
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const isArray = (value: unknown, length: number): value is ReadonlyArray<unknown> =>
  Array.isArray(value) && value.length === length

const failures = <E, I>(schema: Schema.Schema<E, I>) => ({
  encodeFailure: Schema.encodeSync(schema),
  decodeFailure: Schema.decodeUnknownOption(schema)
})

const asEnqueueAnswer = Schema.decodeUnknownOption(EnqueueAnswer)
const fromEnqueueAnswer = Schema.encodeSync(EnqueueAnswer)
const allStored: EnqueueAnswer = { failures: [] }
const enqueueAnswer = {
  encode: (answer: EnqueueAnswer) =>
    answer.failures.length === 0 && answer.same === undefined ? null : fromEnqueueAnswer(answer),
  decode: (value: unknown) => value === null ? allStored : Option.getOrUndefined(asEnqueueAnswer(value))
}

/** Answers once every row without a failure is committed. */
export const enqueue: FrameCall<readonly [RequestFrame], EnqueueAnswer, UnknownFrameVersion | ClusterUnavailable> = {
  code: 1,
  name: "enqueue",
  isArgs: (value): value is readonly [RequestFrame] => isArray(value, 1) && isRequestFrame(value[0]),
  ...enqueueAnswer,
  ...failures(Schema.Union(UnknownFrameVersion, ClusterUnavailable))
}

type Forward = readonly [namespace: string, queue: string, partition: number, rows: RequestFrame]

/** The same, of one node to the one it takes for the owner of the partition. */
export const forwardEnqueue: FrameCall<Forward, EnqueueAnswer, NotOwner | UnknownFrameVersion | ClusterUnavailable> = {
  code: 2,
  name: "forward enqueue",
  isArgs: (value): value is Forward =>
    isArray(value, 4) && isName(value[0]) && isName(value[1]) && isCount(value[2]) && isRequestFrame(value[3]),
  ...enqueueAnswer,
  ...failures(Schema.Union(NotOwner, UnknownFrameVersion, ClusterUnavailable))
}

type Hello = readonly [workerId: string, tasks: ReadonlyArray<string>, credit: number]

/** Messages to the worker are pushed from then on, some before the answer. A connection has one session at most. */
export const attach: FrameCall<Hello, Attachment, ClusterUnavailable> = {
  code: 3,
  name: "attach",
  isArgs: (value): value is Hello =>
    isArray(value, 3) && isName(value[0]) && Array.isArray(value[1]) && value[1].length <= tasksMax
    && value[1].every(isName) && isCount(value[2]),
  encode: ({ leaseMs, sessionId }) => [leaseMs, sessionId],
  decode: (value) =>
    isArray(value, 2) && isCount(value[0]) && isCount(value[1])
      ? { leaseMs: value[0], sessionId: value[1] }
      : undefined,
  ...failures(ClusterUnavailable)
}

type Report = readonly [sessionId: number, reports: OutcomeFrame]
type ReportFailure = SessionUnknown | UnknownFrameVersion | ClusterUnavailable

/** Answers in the order of the reports, after the commit. */
export const report: FrameCall<Report, ReadonlyArray<OutcomeAnswer>, ReportFailure> = {
  code: 4,
  name: "report",
  isArgs: (value): value is Report => isArray(value, 2) && isCount(value[0]) && isOutcomeFrame(value[1]),
  encode: (answers) => answers.every((answer) => answer === "accepted") ? answers.length : answers,
  decode: (value) => {
    if (typeof value !== "number") return isOutcomeAnswers(value) ? value : undefined
    // Looked at before an array of that length is made.
    return isCount(value) && value <= rowsMax ? Array.from({ length: value }, () => "accepted" as const) : undefined
  },
  ...failures(Schema.Union(SessionUnknown, UnknownFrameVersion, ClusterUnavailable))
}

/** Why a connection was refused: the failure of call 0, which no call has. */
export const { decodeFailure: decodeRefusal, encodeFailure: encodeRefusal } = failures(ClusterUnavailable)

const packr = new Packr({ useRecords: false })

export const pack = (value: unknown): Uint8Array => packr.pack(value)

/** `undefined` too when the bytes are no msgpack. */
export const unpack = (bytes: Uint8Array): unknown => {
  try {
    return packr.unpack(bytes)
  } catch {
    return undefined
  }
}

export const unpackPush = (bytes: Uint8Array): ToWorkerFrame | undefined => {
  const value = unpack(bytes)
  return isToWorkerFrame(value) ? value : undefined
}
