/** Payloads, results and errors of a task as text and back, and what an attempt reports that has ended so. */
import { Cause, Data, Effect, Either, Exit, Option, ParseResult, Schema } from "effect"
import { type PayloadVersions, UpcastFailed } from "./PayloadVersions.js"
import { type Failing, RetryAfter, RetryNever, Snooze } from "./Retry.js"
import type { Outcome, Run, RunFailure } from "./Run.js"
import { CodecFailed, isSealed, keyIdOf } from "./Sealed.js"

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
export const ended = <A, E, R>(effect: Effect.Effect<A, E, R>): Exit.Exit<A, E> | undefined =>
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

export const undecodable = (error: { readonly message: string }) =>
  Effect.succeed(failed("undecodable", error instanceof CodecFailed ? error._tag : "ParseError", error.message, false))

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
  return (text: string): Effect.Effect<A, ParseResult.ParseError | NotJson | CodecFailed> => {
    if (isSealed(text)) return new CodecFailed({ reason: "no-codec", keyId: keyIdOf(text) })
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

type Decode<A> = (text: string) => Effect.Effect<A, { readonly message: string }>

const decodersOf = <P, PI>({ older, schema, version }: PayloadVersions<P, PI>): ReadonlyMap<number, Decode<P>> => {
  const decoders = new Map<number, Decode<P>>([[version, decodeWith(schema)]])
  const validate = ParseResult.validate(schema)
  const upcasts = (from: number) => older.slice(from).map(({ upcast }) => upcast)
  older.forEach((each, at) => {
    const decode = decodeWith(each.schema)
    const chain = upcasts(at)
    const bring = (payload: unknown) =>
      Effect.try({
        try: () => chain.reduce((value, upcast) => upcast(value), payload),
        catch: (problem) => new UpcastFailed({ version: each.version, reason: messageOf(problem) })
      })
    decoders.set(each.version, (text) =>
      Effect.flatMap(decode(text), bring).pipe(
        Effect.flatMap((value) =>
          Effect.mapError(validate(value), (issue) =>
            new UpcastFailed({ version: each.version, reason: ParseResult.parseError(issue).message }))
        )
      ))
  })
  return decoders
}

export const make = <P, PI, S, SI, E, EI>(schemas: {
  readonly payload: PayloadVersions<P, PI>
  readonly success: Schema.Schema<S, SI>
  readonly error: Schema.Schema<E, EI>
}) => {
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
    encodePayload: encodeWith(schemas.payload.schema),
    /** By version, all that are read. */
    payloads: decodersOf(schemas.payload),
    toOutcome,
    decodeEnd
  }
}
