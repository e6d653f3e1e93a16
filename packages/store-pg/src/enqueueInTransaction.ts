/**
 * Runs enqueued with the transaction of the application: `enqueueInTransaction` inserts into the inbox on the
 * application's own connection, so the run is there exactly when the rest of the transaction is. The owner of the queue takes it after
 * the commit.
 *
 * Nothing but one unnamed statement per call: no session state, no NOTIFY, so it works through a pooler in transaction mode.
 * After the commit of `withTransaction` the owner is told, where a `Runs` is at hand; else the sweep of the inbox
 * finds the rows, 50 ms to 1 s later.
 */
import { SqlClient, SqlError } from "@effect/sql"
import { sealRequest } from "@orrery/core/codedPorts"
import { InvalidRequest, type PayloadInvalid, type PayloadTooLarge } from "@orrery/core/Errors"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import type { RunId } from "@orrery/core/RunId"
import { payloadBytesMaxDefault, requestProblem, type RunRequest } from "@orrery/core/RunRequest"
import { Runs } from "@orrery/core/Runs"
import type { EnqueueOptions } from "@orrery/core/Task"
import { Effect, FiberRef, Option } from "effect"
import { policyCode } from "./internal/policyCodes.js"

export interface InTransactionOptions extends EnqueueOptions {
  /** Largest payload, bytes; must be what the cluster accepts. Default 256 KiB. */
  readonly payloadBytesMax?: number
  /** Default: that of the environment (`PayloadCodec`); without one the payload is stored as it is. */
  readonly codec?: PayloadCodec.Codec
}

/** What of a task is needed here. */
interface Requests<P> {
  readonly request: (
    payload: P,
    options?: EnqueueOptions
  ) => Effect.Effect<RunRequest, PayloadInvalid | InvalidRequest>
}

type Failure = PayloadInvalid | InvalidRequest | PayloadTooLarge | SqlError.SqlError

/**
 * Enqueues a run of the task with the transaction it is called in (`withTransaction`, or that of the `SqlClient`):
 * rolled back, it has never been; committed, it is durable. Outside of a transaction it is committed when this answers.
 *
 * Not promised: an order among transactions that overlap. Options and bounds are those of `enqueue`.
 */
export const enqueueInTransaction = <P>(
  task: Requests<P>,
  payload: P,
  options?: InTransactionOptions
): Effect.Effect<RunId, Failure, SqlClient.SqlClient> =>
  Effect.map(enqueueManyInTransaction(task, [payload], options), (ids) => ids[0]!)

/** As `enqueueInTransaction`: one run per payload, in order of ids, 1,000 to a statement. */
export const enqueueManyInTransaction = <P>(
  task: Requests<P>,
  payloads: Iterable<P>,
  { codec: given, payloadBytesMax = payloadBytesMaxDefault, ...options }: InTransactionOptions = {}
): Effect.Effect<ReadonlyArray<RunId>, Failure, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const plain = yield* Effect.forEach(payloads, (payload) => task.request(payload, options))
    const codec = given ?? (yield* PayloadCodec.current)
    const requests = codec === undefined ? plain : plain.map((request) => sealRequest(codec, request))
    for (const request of requests) {
      const problem = requestProblem(request, payloadBytesMax) ?? lengthProblem(request)
      if (problem !== undefined) return yield* Effect.fail(problem)
    }
    const sql = yield* SqlClient.SqlClient
    for (let at = 0; at < requests.length; at += rowsPerStatement) {
      yield* sql.unsafe(insert, [JSON.stringify(requests.slice(at, at + rowsPerStatement).map(rowOf))])
    }
    yield* told(requests)
    return requests.map(({ id }) => id)
  })

/**
 * A transaction of the `SqlClient` after whose commit the owners of what was enqueued in it are told at once. Within another
 * one it is part of that. A commit that fails is an `SqlError` here.
 */
export const withTransaction = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError.SqlError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const outer = yield* FiberRef.get(gathered)
    if (outer !== undefined) return yield* sql.withTransaction(effect)
    const queues: Queues = new Map()
    const value = yield* sql.withTransaction(Effect.locally(effect, gathered, queues)).pipe(
      // @effect/sql throws a failed commit as a defect.
      Effect.catchSomeDefect((defect) =>
        defect instanceof SqlError.SqlError ? Option.some(Effect.fail(defect)) : Option.none()
      )
    )
    if (queues.size > 0) yield* nudge([...queues.values()])
    return value
  })

/** Rows of one statement. */
const rowsPerStatement = 1_000
/** Of namespace and queue together: the entity id of a partition has a bound. */
const namesLengthMax = 243

type Queue = Pick<RunRequest, "namespace" | "queue">
type Queues = Map<string, Queue>

/** Queues of the transaction under way that is to tell their owners. */
const gathered = FiberRef.unsafeMake<Queues | undefined>(undefined)

const keyOf = ({ namespace, queue }: Queue) => `${namespace}|${queue}`

const told = (requests: ReadonlyArray<RunRequest>) =>
  Effect.gen(function*() {
    const queues = yield* FiberRef.get(gathered)
    if (queues !== undefined) {
      for (const request of requests) queues.set(keyOf(request), { namespace: request.namespace, queue: request.queue })
      return
    }
    // In a transaction whose end is not seen from here there is nothing to tell yet.
    const transaction = yield* Effect.serviceOption(SqlClient.TransactionConnection)
    if (Option.isNone(transaction)) yield* nudge(requests)
  })

const nudge = (queues: ReadonlyArray<Queue>): Effect.Effect<void> =>
  Effect.flatMap(Effect.serviceOption(Runs), (runs) => {
    if (Option.isNone(runs) || runs.value.nudge === undefined) return Effect.void
    const distinct = new Map(queues.map(({ namespace, queue }) => [keyOf({ namespace, queue }), { namespace, queue }]))
    return runs.value.nudge([...distinct.values()])
  })

const lengthProblem = ({ namespace, queue }: RunRequest): InvalidRequest | undefined => {
  const length = namespace.length + queue.length
  return length <= namesLengthMax ? undefined : new InvalidRequest({
    field: "namespace and queue",
    limit: `at most ${namesLengthMax} characters together`,
    actual: `${length} characters`
  })
}

const rowOf = (
  { id, keys, namespace, payload, policy, priority, queue, resend: _, task, when, ...more }: RunRequest
) => ({
  id,
  namespace,
  queue,
  task,
  payload,
  priority,
  delay: when._tag === "delay" && when.ms > 0 ? when.ms : null,
  at: when._tag === "at" ? when.ms : null,
  policy: policyCode(policy),
  keys,
  more: moreOf(more)
})

/** What is absent or undefined is not said. */
const moreOf = (more: object): string | null => {
  const text = JSON.stringify(more)
  return text === "{}" ? null : text
}

/** Delays count from now by the database clock. */
const insert = `insert into orrery.inbox (id, namespace, queue, task, payload, priority, due_at, policy, keys, more)
  select r.id, r.namespace, r.queue, r.task, r.payload, r.priority,
    coalesce(r.at, extract(epoch from clock_timestamp()) * 1000 + r.delay), r.policy, r.keys, r.more
  from json_to_recordset($1::json) r(
    id uuid, namespace text, queue text, task text, payload text, priority smallint, delay float8, at float8,
    policy text, keys text, more text
  )`
