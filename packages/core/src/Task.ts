/**
 * A task: a named, typed definition of work. Enqueuing one makes a run; a handler, given where the work shall
 * be done, executes it.
 */
import { type Cause, Effect, Exit, Layer, Schema } from "effect"
import * as Backpressure from "./Backpressure.js"
import { deadlineProblem, type EnqueueOptions, type EnqueueResult, type Terms, termsOf } from "./EnqueueTerms.js"
import { type EditError, type EnqueueError, InvalidRequest, PayloadInvalid } from "./Errors.js"
import type { Explanation } from "./Explanation.js"
import { type Attempt, Handlers } from "./Handlers.js"
import { nameLengthMax, namePattern } from "./Name.js"
import * as PayloadVersions from "./PayloadVersions.js"
import type { Failing } from "./Retry.js"
import type { RetryPolicy } from "./RetryPolicy.js"
import type { Outcome, Run } from "./Run.js"
import type { Edited } from "./RunEdit.js"
import { type RunId, unsafeMakeRunId } from "./RunId.js"
import type { Retention, RunRequest } from "./RunRequest.js"
import { Runs } from "./Runs.js"
import * as TaskAttempt from "./TaskAttempt.js"
import * as TaskCodec from "./TaskCodec.js"
import { ended, type RunFailed } from "./TaskCodec.js"
import { editOf, type EditOptions } from "./TaskEdit.js"
import * as TaskIdentity from "./TaskIdentity.js"
import * as TaskKeys from "./TaskKeys.js"
import * as TaskLimiters from "./TaskLimiters.js"
import { versioned } from "./TaskName.js"
import * as TaskPolicy from "./TaskPolicy.js"

export type { EnqueueOptions, EnqueueResult } from "./EnqueueTerms.js"
export type { EditOptions } from "./TaskEdit.js"

export { failureTextMax, resultBytesMax, RunFailed } from "./TaskCodec.js"
export { PayloadVersions, versions } from "./PayloadVersions.js"

export interface Task<Name extends string, P, PI, S, SI, E, EI, C = never, G = number> {
  readonly name: Name
  readonly queue: string
  readonly namespace: string
  /** The newest. */
  readonly payload: Schema.Schema<P, PI>
  /** Of new runs' payloads. */
  readonly version: number
  readonly success: Schema.Schema<S, SI>
  readonly error: Schema.Schema<E, EI>
  readonly retry: RetryPolicy
  /** Of `attempt.progress`; `undefined`: percentages. */
  readonly progress: Schema.Schema<G, unknown> | undefined

  /** Makes the request without sending it. */
  readonly request: (payload: P, options?: EnqueueOptions) => Effect.Effect<RunRequest, PayloadInvalid | InvalidRequest>
  /** Answers once the run is durable. Where another one stands for it (`IdentityOptions`), with the id of that. */
  readonly enqueue: (payload: P, options?: EnqueueOptions) => Effect.Effect<RunId, EnqueueError, Runs>
  /** As `enqueue`, and tells whether the run is new. */
  readonly enqueueDetailed: (payload: P, options?: EnqueueOptions) => Effect.Effect<EnqueueResult, EnqueueError, Runs>
  /** One run per payload, unless another one stands for it; in order of the payloads. Answers once all are durable. */
  readonly enqueueMany: (
    payloads: Iterable<P>,
    options?: EnqueueOptions
  ) => Effect.Effect<ReadonlyArray<RunId>, EnqueueError, Runs>
  /** Waits for the end of a run of this task, from any process. */
  readonly result: (
    id: RunId
  ) => Effect.Effect<
    S,
    E | RunFailed | Effect.Effect.Error<ReturnType<Runs["Type"]["awaitFinal"]>>,
    Runs
  >
  /** Changes a run of this task that waits; what holds is said at `Runs.edit`. */
  readonly edit: (id: RunId, changes: EditOptions<P>) => Effect.Effect<Edited, EditError, Runs>
  /** Why a run is where it is. */
  readonly explain: (
    id: RunId
  ) => Effect.Effect<Explanation, Effect.Effect.Error<ReturnType<Runs["Type"]["explain"]>>, Runs>
  /** What a run that is final has come to. */
  readonly end: (run: Run) => Effect.Effect<S, E | RunFailed>
  /** `enqueue`, then `result`. */
  readonly execute: (
    payload: P,
    options?: EnqueueOptions
  ) => Effect.Effect<
    S,
    E | RunFailed | EnqueueError | Effect.Effect.Error<ReturnType<Runs["Type"]["awaitFinal"]>>,
    Runs
  >
  /** How an attempt ends whose handler ends with this: a success, or the failure of a result that cannot be encoded. */
  readonly outcomeOf: (result: S) => Effect.Effect<Outcome>
  /** The payload of a run of this task, decoded; one of an older version is brought to the newest. */
  readonly payloadOf: (run: Pick<Run, "payload" | "version">) => Effect.Effect<P, PayloadInvalid>
  /**
   * Gives this process the ability to run the task. The handler may be run more than once for a run. By `attempt` it tells
   * how far it is, logs, and keeps a checkpoint for the attempt after it. What it may say with a failure: `Retry`.
   */
  readonly toLayer: <R>(
    handler: (payload: P, attempt: TaskAttempt.TaskAttempt<C, G>) => Effect.Effect<S, Failing<E>, R>
  ) => Layer.Layer<never, never, Handlers | Exclude<R, Attempt>>
}

/**
 * Defines a task. Throws on a bad option, naming it: a wrong definition is a mistake in the program.
 *
 * Limits, order and fairness are those of `TaskKeys.KeyOptions`, limits that span queues those of `TaskLimiters`; retries and times
 * those of `TaskPolicy`; which requests are one, and how many may wait, those of `TaskIdentity`.
 *
 * `isRetryable` decides on a typed error before the policy does (default: all are); defects and timeouts are retried by the
 * default policy.
 */
export const make = <
  const Name extends string,
  P,
  PI,
  S = void,
  SI = void,
  E = never,
  EI = never,
  C = never,
  CI = never,
  G = number,
  GI = number
>(
  name: Name,
  options:
    & {
      /** A schema, or all that is still read: `Task.versions`. */
      readonly payload: Schema.Schema<P, PI> | PayloadVersions.PayloadVersions<P, PI>
      readonly success?: Schema.Schema<S, SI>
      readonly error?: Schema.Schema<E, EI>
      /** Default "default". */
      readonly queue?: string
      /** Default "default". */
      readonly namespace?: string
      readonly isRetryable?: (error: E) => boolean
      /**
       * What stays of a run that has succeeded. Default "keep". "none" drains about a tenth faster (22,600 against 20,200/s in
       * one run); see `Retention` for its price.
       */
      readonly retention?: Retention
      /** Of `attempt.checkpoint`. Each attempt of such a task begins with a look for one. */
      readonly checkpoint?: Schema.Schema<C, CI>
      /** Of `attempt.progress`. Default: a percentage. */
      readonly progress?: Schema.Schema<G, GI>
    }
    & TaskKeys.KeyOptions<P>
    & TaskLimiters.LimiterOptions<NoInfer<P>>
    & TaskIdentity.IdentityOptions<P>
    & TaskIdentity.BacklogOptions
    & TaskPolicy.RetryOptions<NoInfer<E>>
    & TaskPolicy.TimeOptions
    & TaskPolicy.SlotOptions
): Task<Name, P, PI, S, SI, E, EI, C, G> => {
  const queue = options.queue ?? "default"
  const namespace = options.namespace ?? "default"
  for (const [field, value] of [["task", name], ["queue", queue], ["namespace", namespace]] as const) {
    if (!namePattern.test(value)) {
      throw new InvalidRequest({ field, limit: "1 to 200 characters of A-Z a-z 0-9 _ . : / -", actual: value })
    }
  }
  const identity = TaskIdentity.make(name, options)
  const limiters = TaskLimiters.make<P>(options)
  const { deadlineMs, heartbeatMs, retry, text: policy } = TaskPolicy.make(options, {
    ...identity.rule === undefined ? {} : { identity: identity.rule },
    ...TaskIdentity.backlogOf(options),
    ...limiters.terms === undefined ? {} : { limiters: limiters.terms }
  })
  const keysOf = TaskKeys.make(name, options, limiters.costsOf)
  const versions = PayloadVersions.of(options.payload)
  const latest = versioned(name, versions.version)
  if (latest.length > nameLengthMax) {
    throw new InvalidRequest({ field: "task", limit: `${nameLengthMax} characters with its version`, actual: latest })
  }
  const successSchema = (options.success ?? Schema.Void) as Schema.Schema<S, SI>
  const errorSchema = (options.error ?? Schema.Never) as Schema.Schema<E, EI>
  const codec = TaskCodec.make({ payload: versions, success: successSchema, error: errorSchema })

  const requestOf = (payload: P, terms: Terms): Effect.Effect<RunRequest, PayloadInvalid | InvalidRequest> => {
    const own = identity.keyOf(payload, terms)
    if (own instanceof InvalidRequest) return Effect.fail(own)
    const late = deadlineProblem(terms, deadlineMs)
    if (late !== undefined) return Effect.fail(late)
    const keys = keysOf(payload, terms, identity.orderOf(own))
    if (keys instanceof InvalidRequest) return Effect.fail(keys)
    const text = codec.encodePayload(payload)
    const done = (payload: string): RunRequest => ({
      id: unsafeMakeRunId(terms.nowMs),
      namespace,
      queue,
      task: latest,
      payload,
      priority: terms.priority,
      when: terms.when,
      policy,
      keys,
      ...own === undefined ? undefined : { identity: own },
      trace: terms.trace,
      resend: false
    })
    const exit = ended(text)
    return exit !== undefined && Exit.isSuccess(exit)
      ? Effect.succeed(done(exit.value))
      : Effect.mapBoth(text, {
        onFailure: (error) => new PayloadInvalid({ task: name, issue: error.message }),
        onSuccess: done
      })
  }

  /** In a plain loop as long as the payloads encode without waiting, as nearly all do. */
  const requestsOf = (payloads: ReadonlyArray<P>, terms: Terms) => {
    const requests: Array<RunRequest> = []
    for (const payload of payloads) {
      const exit = ended(requestOf(payload, terms))
      if (exit === undefined || Exit.isFailure(exit)) {
        return Effect.forEach(payloads, (payload) => requestOf(payload, terms))
      }
      requests.push(exit.value)
    }
    return Effect.succeed(requests)
  }

  const termsFor = (options: EnqueueOptions) => termsOf(options, identity.rule)
  const request = (payload: P, options: EnqueueOptions = {}) =>
    Effect.flatMap(termsFor(options), (terms) => requestOf(payload, terms))

  const enqueueAll = (payloads: Iterable<P>, options: EnqueueOptions = {}) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const terms = yield* termsFor(options)
      const requests = yield* requestsOf(Array.from(payloads), terms)
      const same = yield* Backpressure.enqueueMany(runs, requests, options)
      return { requests, same }
    })

  const enqueueMany: Task<Name, P, PI, S, SI, E, EI>["enqueueMany"] = (payloads, options) =>
    Effect.map(
      enqueueAll(payloads, options),
      ({ requests, same }) => requests.map(({ id }) => same.size === 0 ? id : same.get(id) ?? id)
    )

  const enqueue: Task<Name, P, PI, S, SI, E, EI>["enqueue"] = (payload, enqueueOptions) =>
    Effect.map(enqueueMany([payload], enqueueOptions), (ids) => ids[0]!)

  const enqueueDetailed: Task<Name, P, PI, S, SI, E, EI>["enqueueDetailed"] = (payload, enqueueOptions) =>
    Effect.map(enqueueAll([payload], enqueueOptions), ({ requests: [asked], same }) => {
      const found = same.get(asked!.id)
      return { id: found ?? asked!.id, isNew: found === undefined }
    })

  const result: Task<Name, P, PI, S, SI, E, EI>["result"] = (id) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      return yield* codec.decodeEnd(yield* runs.awaitFinal(id))
    })

  return {
    name,
    queue,
    namespace,
    payload: versions.schema,
    version: versions.version,
    success: successSchema,
    error: errorSchema,
    retry,
    progress: options.progress as unknown as Task<Name, P, PI, S, SI, E, EI, C, G>["progress"],
    end: codec.decodeEnd,
    request,
    enqueue,
    enqueueDetailed,
    enqueueMany,
    result,
    edit: (id, changes) =>
      Effect.flatMap(
        editOf({ name, version: versions.version, encodePayload: codec.encodePayload }, changes),
        (edit) => Effect.flatMap(Runs, (runs) => runs.edit(id, edit))
      ),
    explain: (id) => Effect.flatMap(Runs, (runs) => runs.explain(id)),
    payloadOf: ({ payload, version = 1 }) => {
      const decode = codec.payloads.get(version)
      return decode === undefined
        ? new PayloadInvalid({ task: name, issue: `version ${version} is none of those that are read` })
        : Effect.mapError(decode(payload), ({ message }) => new PayloadInvalid({ task: name, issue: message }))
    },
    execute: (payload, enqueueOptions) => Effect.flatMap(enqueue(payload, enqueueOptions), result),
    outcomeOf: (result) => codec.toOutcome(Exit.succeed(result), () => true),
    toLayer: <R>(
      handler: (payload: P, attempt: TaskAttempt.TaskAttempt<C, G>) => Effect.Effect<S, Failing<E>, R>
    ) =>
      Layer.effectDiscard(
        Effect.gen(function*() {
          const handlers = yield* Handlers
          const context = yield* Effect.context<Exclude<R, Attempt>>()
          const isRetryable = options.isRetryable ?? (() => true)
          const end = {
            onSuccess: (value: S) => codec.toOutcome(Exit.succeed(value), isRetryable),
            onFailure: (cause: Cause.Cause<Failing<E>>) => codec.toOutcome(Exit.failCause(cause), isRetryable)
          }
          const attemptOf = TaskAttempt.make({ checkpoint: options.checkpoint, progress: options.progress })
          const run = (payload: P, raw: Attempt["Type"]) => {
            const attempt = attemptOf(raw)
            const effect = Effect.isEffect(attempt)
              ? Effect.flatMap(attempt, (typed) => begin(handler, payload, typed))
              : begin(handler, payload, attempt)
            const exit = ended(effect)
            return exit === undefined
              ? Effect.matchCauseEffect(effect, end) as Effect.Effect<Outcome, never, Attempt>
              : codec.toOutcome(exit, isRetryable)
          }
          for (const [version, decode] of codec.payloads) {
            yield* handlers.register(
              versioned(name, version),
              (text, attempt) => {
                const payload = decode(text)
                const exit = ended(payload)
                const start = (decoded: P) => run(decoded, attempt)
                return exit !== undefined && Exit.isSuccess(exit)
                  ? start(exit.value)
                  : Effect.matchEffect(payload, { onFailure: TaskCodec.undecodable, onSuccess: start })
              },
              context,
              heartbeatMs,
              {
                namespace,
                slots: options.slots ?? 1,
                conclude: (exit) => codec.toOutcome(exit as Exit.Exit<S, Failing<E>>, isRetryable)
              }
            )
          }
        })
      )
  }
}

const begin = <P, A, S, E, R>(
  handler: (payload: P, attempt: A) => Effect.Effect<S, E, R>,
  payload: P,
  attempt: A
): Effect.Effect<S, E, R> => {
  try {
    return handler(payload, attempt)
  } catch (defect) {
    return Effect.die(defect)
  }
}
