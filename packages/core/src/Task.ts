/**
 * A task: a named, typed definition of work. Enqueuing one makes a run; a handler, given where the work shall
 * be done, executes it.
 */
import { Cause, Data, Effect, Either, Exit, Layer, Option, ParseResult, Schema } from "effect"
import { whenThereIsRoom } from "./Backpressure.js"
import { deadlineProblem, type EnqueueOptions, type EnqueueResult, type Terms, termsOf } from "./EnqueueTerms.js"
import { type EnqueueError, InvalidRequest, PayloadInvalid } from "./Errors.js"
import type { Explanation } from "./Explanation.js"
import { type Attempt, Handlers } from "./Handlers.js"
import { namePattern } from "./Name.js"
import { type Failing, RetryAfter, RetryNever, Snooze } from "./Retry.js"
import type { RetryPolicy } from "./RetryPolicy.js"
import type { Outcome, Run, RunFailure } from "./Run.js"
import { type RunId, unsafeMakeRunId } from "./RunId.js"
import type { Retention, RunRequest } from "./RunRequest.js"
import { Runs } from "./Runs.js"
import * as TaskAttempt from "./TaskAttempt.js"
import * as TaskIdentity from "./TaskIdentity.js"
import * as TaskKeys from "./TaskKeys.js"
import * as TaskPolicy from "./TaskPolicy.js"

export type { EnqueueOptions, EnqueueResult } from "./EnqueueTerms.js"

/** Longest text of an error kept with a run, in characters. Longer ones are cut with a mark. */
export const failureTextMax = 4_096
/** Largest encoded result, in bytes. A larger one fails the run as `unencodable`. */
export const resultBytesMax = 256 * 1024

/** The run ended without a success and without a typed error of the task. */
export class RunFailed extends Schema.TaggedError<RunFailed>("@orrery/core/RunFailed")("RunFailed", {
  runId: Schema.String,
  state: Schema.String,
  kind: Schema.String,
  tag: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `run ${this.runId} ${this.state}: ${this.kind} ${this.tag} ${this.detail}`
  }
}

export interface Task<Name extends string, P, PI, S, SI, E, EI, C = never, G = number> {
  readonly name: Name
  readonly queue: string
  readonly namespace: string
  readonly payload: Schema.Schema<P, PI>
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
  /** The payload of a run of this task, decoded. */
  readonly payloadOf: (run: Pick<Run, "id" | "payload">) => Effect.Effect<P, PayloadInvalid>
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
 * Limits, order and fairness are those of `TaskKeys.KeyOptions`; retries and times those of `TaskPolicy`; which requests are one,
 * and how many may wait, those of `TaskIdentity`.
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
      readonly payload: Schema.Schema<P, PI>
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
    & TaskIdentity.IdentityOptions<P>
    & TaskIdentity.BacklogOptions
    & TaskPolicy.RetryOptions<NoInfer<E>>
    & TaskPolicy.TimeOptions
): Task<Name, P, PI, S, SI, E, EI, C, G> => {
  const queue = options.queue ?? "default"
  const namespace = options.namespace ?? "default"
  for (const [field, value] of [["task", name], ["queue", queue], ["namespace", namespace]] as const) {
    if (!namePattern.test(value)) {
      throw new InvalidRequest({ field, limit: "1 to 200 characters of A-Z a-z 0-9 _ . : / -", actual: value })
    }
  }
  const identity = TaskIdentity.make(name, options)
  const { deadlineMs, heartbeatMs, retry, text: policy } = TaskPolicy.make(options, {
    ...identity.rule === undefined ? {} : { identity: identity.rule },
    ...TaskIdentity.backlogOf(options)
  })
  const keysOf = TaskKeys.make(name, options)
  const payloadSchema = options.payload
  const successSchema = (options.success ?? Schema.Void) as Schema.Schema<S, SI>
  const errorSchema = (options.error ?? Schema.Never) as Schema.Schema<E, EI>
  const codec = makeCodec({ payload: payloadSchema, success: successSchema, error: errorSchema })

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
      task: name,
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
      const same = yield* whenThereIsRoom(runs.enqueueMany(requests), options)
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
    payload: payloadSchema,
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
    explain: (id) => Effect.flatMap(Runs, (runs) => runs.explain(id)),
    payloadOf: ({ payload }) =>
      Effect.mapError(
        codec.decodePayload(payload),
        (error) => new PayloadInvalid({ task: name, issue: error.message })
      ),
    execute: (payload, enqueueOptions) => Effect.flatMap(enqueue(payload, enqueueOptions), result),
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
          yield* handlers.register(
            name,
            (text, attempt) => {
              const payload = codec.decodePayload(text)
              const exit = ended(payload)
              return exit !== undefined && Exit.isSuccess(exit)
                ? run(exit.value, attempt)
                : Effect.matchEffect(payload, { onFailure: undecodable, onSuccess: (decoded) => run(decoded, attempt) })
            },
            context,
            heartbeatMs,
            (exit) => codec.toOutcome(exit as Exit.Exit<S, Failing<E>>, isRetryable)
          )
        })
      )
  }
}

const cut = (text: string): string =>
  text.length <= failureTextMax ? text : `${text.slice(0, failureTextMax)} … (${text.length} characters)`

const failed = (
  kind: RunFailure["kind"],
  tag: string,
  message: string,
  retryable: boolean,
  error?: string
): Extract<Outcome, { readonly _tag: "failure" }> => ({
  _tag: "failure",
  failure: { kind, tag, message: cut(message), ...(error === undefined ? {} : { error }) },
  retryable
})

const tagOf = (value: unknown): string =>
  typeof value === "object" && value !== null && "_tag" in value && typeof value._tag === "string"
    ? value._tag
    : value instanceof Error
    ? value.name
    : typeof value

/** The exit of an effect that needs no fiber: it has succeeded or failed already. */
const ended = <A, E, R>(effect: Effect.Effect<A, E, R>): Exit.Exit<A, E> | undefined =>
  Exit.isExit(effect) ? effect as Exit.Exit<A, E> : undefined

/** The error of the task in what a handler failed with, and what it said with it. */
const saidWith = <E>(failing: Failing<E>, isRetryable: (error: E) => boolean) => {
  if (failing instanceof RetryAfter) {
    const { delayMs, error } = failing
    return { error, retryable: isRetryable(error), retryAfterMs: delayMs }
  }
  if (failing instanceof RetryNever) return { error: failing.error, retryable: false }
  const error = failing as E
  return { error, retryable: isRetryable(error) }
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

const undecodable = (error: { readonly message: string }) =>
  Effect.succeed(failed("undecodable", "ParseError", error.message, false))

const messageOf = (value: unknown): string => value instanceof Error ? value.message : String(value)

/** The schema lets through what JSON cannot say (a bigint, a circle), or the text is none. */
class NotJson extends Data.TaggedError("NotJson")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

// `undefined` (a void payload or result) has no JSON text; null stands for it, and is decoded back.
const toJson = (encoded: unknown): Effect.Effect<string, NotJson> => {
  try {
    return Effect.succeed(encoded === undefined ? "null" : JSON.stringify(encoded))
  } catch (cause) {
    return new NotJson({ reason: `it has no JSON form: ${messageOf(cause)}` })
  }
}

const makeCodec = <P, PI, S, SI, E, EI>(schemas: {
  readonly payload: Schema.Schema<P, PI>
  readonly success: Schema.Schema<S, SI>
  readonly error: Schema.Schema<E, EI>
}) => {
  // Parsed by hand where the schema answers at once, as nearly all do: several times the speed of a chain of effects.
  const encodeWith = <A, I>(schema: Schema.Schema<A, I>) => {
    const encode = ParseResult.encode(schema)
    const issueOf = (issue: ParseResult.ParseIssue) => ParseResult.parseError(issue)
    return (value: A): Effect.Effect<string, ParseResult.ParseError | NotJson> => {
      const encoded = encode(value) as
        | Either.Either<I, ParseResult.ParseIssue>
        | Effect.Effect<I, ParseResult.ParseIssue>
      if (!Either.isEither(encoded)) return Effect.flatMap(Effect.mapError(encoded, issueOf), toJson)
      return Either.isRight(encoded) ? toJson(encoded.right) : Effect.fail(issueOf(encoded.left))
    }
  }
  const decodeWith = <A, I>(schema: Schema.Schema<A, I>) => {
    const decode = ParseResult.decodeUnknown(schema)
    const isUndefined = Schema.is(Schema.typeSchema(schema))(undefined)
    const issueOf = (issue: ParseResult.ParseIssue) => ParseResult.parseError(issue)
    return (text: string): Effect.Effect<A, ParseResult.ParseError | NotJson> => {
      let json: unknown
      try {
        json = JSON.parse(text)
      } catch (cause) {
        return new NotJson({ reason: `it is no JSON: ${messageOf(cause)}` })
      }
      const decoded = decode(json === null && isUndefined ? undefined : json) as
        | Either.Either<A, ParseResult.ParseIssue>
        | Effect.Effect<A, ParseResult.ParseIssue>
      if (!Either.isEither(decoded)) return Effect.mapError(decoded, issueOf)
      return Either.isRight(decoded) ? Effect.succeed(decoded.right) : Effect.fail(issueOf(decoded.left))
    }
  }
  const encodeSuccess = encodeWith(schemas.success)
  const encodeError = encodeWith(schemas.error)
  const decodeSuccess = decodeWith(schemas.success)
  const decodeError = decodeWith(schemas.error)

  const unencodable = (cause: Cause.Cause<unknown>) =>
    Effect.succeed(failed("unencodable", "ParseError", Cause.pretty(cause), false))
  const onSuccess = (result: string): Effect.Effect<Outcome> => {
    // Bytes are counted only where they might be too many.
    const size = result.length * 3 > resultBytesMax ? Buffer.byteLength(result) : 0
    return Effect.succeed(
      size <= resultBytesMax
        ? { _tag: "success", result }
        : failed("unencodable", "ResultTooLarge", `the result is ${size} bytes, the limit is ${resultBytesMax}`, false)
    )
  }
  const toOutcome = (exit: Exit.Exit<S, Failing<E>>, isRetryable: (error: E) => boolean): Effect.Effect<Outcome> => {
    if (Exit.isSuccess(exit)) {
      const encoded = encodeSuccess(exit.value)
      const done = ended(encoded)
      return done !== undefined && Exit.isSuccess(done)
        ? onSuccess(done.value)
        : Effect.matchCauseEffect(encoded, { onSuccess, onFailure: unencodable })
    }
    const cause = exit.cause
    const typed = Cause.failureOption(cause)
    if (Option.isSome(typed)) {
      if (typed.value instanceof Snooze) return Effect.succeed({ _tag: "snooze", delayMs: typed.value.delayMs })
      const { error, retryAfterMs, retryable } = saidWith(typed.value, isRetryable)
      return encodeError(error).pipe(
        Effect.map((encoded): Outcome => {
          const outcome = failed("failure", tagOf(error), messageOf(error), retryable, encoded)
          return retryAfterMs === undefined ? outcome : { ...outcome, retryAfterMs }
        }),
        Effect.catchAllCause((problem) =>
          Effect.succeed(failed("unencodable", tagOf(error), Cause.pretty(problem), false))
        )
      )
    }
    if (Cause.isInterruptedOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
    const defect = Cause.squash(cause)
    return Effect.succeed(failed("defect", tagOf(defect), messageOf(defect), true))
  }

  const decodeEnd = (run: Run): Effect.Effect<S, E | RunFailed> => {
    const unreadable = (issue: { readonly message: string }) =>
      new RunFailed({ runId: run.id, state: run.state, kind: "undecodable", tag: "ParseError", detail: issue.message })
    if (run.state === "succeeded") return Effect.mapError(decodeSuccess(run.result ?? "null"), unreadable)
    const failure = run.failure
    const plain = Effect.fail(
      new RunFailed({
        runId: run.id,
        state: run.state,
        kind: failure?.kind ?? run.state,
        tag: failure?.tag ?? "",
        detail: failure?.message ?? ""
      })
    )
    if (run.state !== "failed" || failure?.kind !== "failure" || failure.error === undefined) return plain
    return decodeError(failure.error).pipe(Effect.mapError(unreadable), Effect.flatMap(Effect.fail))
  }

  return {
    encodePayload: encodeWith(schemas.payload),
    decodePayload: decodeWith(schemas.payload),
    toOutcome,
    decodeEnd
  }
}
