/**
 * Coalesces the enqueue calls of concurrent fibers into few large ones.
 *
 * Each queue has a line of its own, so that one whose owner is being replaced holds no other up. While a batch of a line
 * is in flight the next one gathers, so batching adapts to load with no timer; a further batch is sent beside it only
 * when it is full. A row is answered for itself: a bad one fails its caller, not the batch. Rows whose
 * fate is unknown (the connection broke, no answer in time, the owner out of reach) are sent again with `resend: true`,
 * which makes the owner look whether it has them, until their caller's budget ends.
 */
import {
  ClusterUnavailable,
  type EnqueueError,
  type InvalidRequest,
  Overloaded,
  type PayloadTooLarge
} from "@orrery/core/Errors"
import { isOrdered, lineOf } from "@orrery/core/RunKeys"
import { requestProblem, type RunRequest } from "@orrery/core/RunRequest"
import type { RunId } from "@orrery/core/RunId"
import { noSameRuns, type SameRuns } from "@orrery/core/Runs"
import { Duration, Effect, FiberSet, type Scope } from "effect"
import type { EnqueueAnswer } from "./NodeRpcs.js"

export interface BatcherOptions {
  /** Rows of one batch. */
  readonly batchRowsMax: number
  /** Characters of the payloads of one batch. A single row may exceed it. */
  readonly batchCharsMax: number
  /** Batches of one queue under way at once. The second and further ones only when full. */
  readonly batchesInFlightMax: number
  /** Rows waiting; a call that would exceed it fails with `Overloaded`, unless nothing waits. */
  readonly pendingRowsMax: number
  /** Characters of waiting payloads; as `pendingRowsMax`. */
  readonly pendingCharsMax: number
  /** Largest payload, in bytes. The cluster's own limit, so that a call fails whole before anything is sent. */
  readonly payloadBytesMax: number
  /** How long the rows of a call are sent again before it fails with `ClusterUnavailable`, ms. */
  readonly budgetMs: number
}

/** Sends one batch; the answer names the rows that were not stored. Must end in bounded time. */
export type Send = (requests: ReadonlyArray<RunRequest>) => Effect.Effect<EnqueueAnswer, ClusterUnavailable>

/** One call of `enqueueMany`. */
interface Caller {
  rowsLeft: number
  /** Monotonic, ms. */
  readonly deadline: number
  isDone: boolean
  /** Runs that stand for requests of it. */
  same: Map<RunId, RunId> | undefined
  readonly resume: (effect: Effect.Effect<SameRuns, EnqueueError>) => void
}

interface Row {
  readonly request: RunRequest
  readonly caller: Caller
  /** Has been sent before. */
  isResend: boolean
}

/** The waiting rows of one queue. Exists while it has rows, waiting or under way. */
interface Line {
  readonly key: string
  /** Oldest first, read from `head`. */
  pending: Array<Row>
  head: number
  rows: number
  chars: number
  batchesInFlight: number
  readonly isInOrder: boolean
}

interface State {
  readonly options: BatcherOptions
  readonly send: Send
  /** In order of their deadlines. */
  readonly callers: Set<Caller>
  readonly lines: Map<string, Line>
  /** Of all lines. */
  pendingRows: number
  pendingChars: number
  lastFailure: ClusterUnavailable | undefined
  isClosed: boolean
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Pause before rows are sent again. */
const resendPause = Duration.millis(50)
/** How exactly the end of a budget is kept. */
const sweepInterval = Duration.millis(250)
/** Advice to a caller refused by the bound of waiting rows. */
const retryAfterMs = 100

/** Sends in the background until the scope closes; then every waiting call fails. */
export const make = (
  options: BatcherOptions,
  send: Send
): Effect.Effect<(requests: ReadonlyArray<RunRequest>) => Effect.Effect<SameRuns, EnqueueError>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const state: State = {
      options,
      send,
      callers: new Set(),
      lines: new Map(),
      pendingRows: 0,
      pendingChars: 0,
      lastFailure: undefined,
      isClosed: false,
      fork: yield* FiberSet.makeRuntime<never, void, never>()
    }
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        state.isClosed = true
        for (const caller of state.callers) end(state, caller, closed)
      })
    )
    yield* Effect.sync(() => endOverdue(state)).pipe(Effect.delay(sweepInterval), Effect.forever, Effect.forkScoped)
    return (requests) => requests.length === 0 ? none : enqueue(state, requests)
  })

const none = Effect.succeed(noSameRuns)
const closed = Effect.fail(new ClusterUnavailable({ operation: "enqueue", reason: "the client is closed" }))

const enqueue = (state: State, requests: ReadonlyArray<RunRequest>): Effect.Effect<SameRuns, EnqueueError> =>
  Effect.async((resume) => {
    if (state.isClosed) return resume(closed)
    const problem = refusal(state, requests)
    if (problem !== undefined) return resume(Effect.fail(problem))
    const deadline = performance.now() + state.options.budgetMs
    const caller: Caller = { rowsLeft: requests.length, deadline, isDone: false, same: undefined, resume }
    state.callers.add(caller)
    const lines = new Set<Line>()
    for (const request of requests) lines.add(put(state, { request, caller, isResend: request.resend }))
    for (const line of lines) sendNext(state, line)
    // Rows of a caller that has gone are dropped when their turn comes; those under way may still be stored.
    return Effect.sync(() => end(state, caller, none))
  })

const end = (state: State, caller: Caller, result: Effect.Effect<SameRuns, EnqueueError>): void => {
  if (caller.isDone) return
  caller.isDone = true
  state.callers.delete(caller)
  caller.resume(result)
}

const endOverdue = (state: State): void => {
  const now = performance.now()
  for (const caller of state.callers) {
    if (caller.deadline > now) return
    const reason = state.lastFailure?.reason ?? "no answer in time"
    end(state, caller, Effect.fail(new ClusterUnavailable({ operation: "enqueue", reason })))
  }
}

const refusal = (
  state: State,
  requests: ReadonlyArray<RunRequest>
): InvalidRequest | PayloadTooLarge | Overloaded | undefined => {
  const { options } = state
  let chars = 0
  for (const request of requests) {
    const problem = requestProblem(request, options.payloadBytesMax)
    if (problem !== undefined) return problem
    chars += request.payload.length
  }
  const { pendingChars, pendingRows } = state
  // A call larger than the bound goes through alone: its rows are in the caller's memory anyway.
  if (pendingRows === 0) return undefined
  if (pendingRows + requests.length > options.pendingRowsMax) {
    return new Overloaded({ what: "waiting rows", limit: options.pendingRowsMax, actual: pendingRows, retryAfterMs })
  }
  return pendingChars + chars > options.pendingCharsMax
    ? new Overloaded({ what: "waiting payload", limit: options.pendingCharsMax, actual: pendingChars, retryAfterMs })
    : undefined
}

const put = (state: State, row: Row): Line => {
  const { keys, namespace, payload, queue, task } = row.request
  // One batch after the other: of two under way the second may come first.
  const isInOrder = keys !== null && isOrdered(lineOf(task, keys))
  const key = `${namespace}|${queue}${isInOrder ? "|in order" : ""}`
  let line = state.lines.get(key)
  if (line === undefined) {
    line = { key, pending: [], head: 0, rows: 0, chars: 0, batchesInFlight: 0, isInOrder }
    state.lines.set(key, line)
  }
  line.pending.push(row)
  line.rows += 1
  line.chars += payload.length
  state.pendingRows += 1
  state.pendingChars += payload.length
  return line
}

const sendNext = (state: State, line: Line): void => {
  const { batchCharsMax, batchesInFlightMax, batchRowsMax } = state.options
  if (line.rows === 0 && line.batchesInFlight === 0) state.lines.delete(line.key)
  while (line.rows > 0 && line.batchesInFlight < batchesInFlightMax) {
    const isFull = line.rows >= batchRowsMax || line.chars >= batchCharsMax
    if (line.batchesInFlight > 0 && (!isFull || line.isInOrder)) return
    line.batchesInFlight += 1
    // The first of an idle line waits for the fibers that are ready to run now, so that their rows go together.
    const batch = isFull ? take(state, line) : undefined
    const gather = batch === undefined ? Effect.yieldNow() : Effect.void
    state.fork(
      gather.pipe(
        Effect.zipRight(Effect.suspend(() => deliver(state, batch ?? take(state, line)))),
        Effect.ensuring(Effect.sync(() => {
          line.batchesInFlight -= 1
          sendNext(state, line)
        }))
      )
    )
    if (batch === undefined) return
  }
}

/** The next batch, without the rows nobody waits for. */
const take = (state: State, line: Line): ReadonlyArray<Row> => {
  const { batchCharsMax, batchRowsMax } = state.options
  const batch: Array<Row> = []
  let chars = 0
  while (line.rows > 0 && batch.length < batchRowsMax && chars < batchCharsMax) {
    const row = line.pending[line.head++]!
    const { length } = row.request.payload
    line.rows -= 1
    line.chars -= length
    state.pendingRows -= 1
    state.pendingChars -= length
    if (row.caller.isDone) continue
    chars += length
    batch.push(row)
  }
  // Cut the read part off now and then: a shift per row would copy the line each time.
  if (line.head > 1_024 && line.head * 2 > line.pending.length) {
    line.pending = line.pending.slice(line.head)
    line.head = 0
  }
  return batch
}

/** Sends a batch until each row is answered or nobody waits for it any more. */
const deliver = (state: State, rows: ReadonlyArray<Row>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const open = rows.filter((row) => !row.caller.isDone)
    if (open.length === 0) return Effect.void
    const requests = open.map((row) =>
      row.isResend && !row.request.resend ? { ...row.request, resend: true } : row.request
    )
    return Effect.matchEffect(state.send(requests), {
      onFailure: (error) => {
        state.lastFailure = error
        return again(state, open)
      },
      onSuccess: (answer) => again(state, settle(state, open, answer))
    })
  })

const again = (state: State, rows: ReadonlyArray<Row>): Effect.Effect<void> => {
  if (rows.length === 0) return Effect.void
  for (const row of rows) row.isResend = true
  return Effect.zipRight(Effect.sleep(resendPause), deliver(state, rows))
}

/** Answers those whose fate is known; the others are to be sent again. */
const settle = (state: State, rows: ReadonlyArray<Row>, answer: EnqueueAnswer): ReadonlyArray<Row> => {
  const failed = answer.failures.length === 0
    ? undefined
    : new Map(answer.failures.map((failure) => [failure.index, failure.error]))
  for (const { id, index } of answer.same ?? []) {
    const row = rows[index]
    if (row !== undefined) (row.caller.same ??= new Map()).set(row.request.id, id)
  }
  return rows.filter((row, index) => {
    const error = failed?.get(index)
    if (error === undefined) {
      if (--row.caller.rowsLeft === 0) {
        end(state, row.caller, row.caller.same === undefined ? none : Effect.succeed(row.caller.same))
      }
      return false
    }
    if (error._tag !== "ClusterUnavailable") {
      end(state, row.caller, Effect.fail(error))
      return false
    }
    state.lastFailure = error
    return true
  })
}
