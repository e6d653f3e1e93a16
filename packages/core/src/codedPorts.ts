/** The ports of a client and of a worker, with a codec between them and the cluster. */
import { Effect, Either, Exit, Option } from "effect"
import { isRedrivable, redriveId } from "./deadLetter.js"
import { type ClusterUnavailable, InvalidRequest, NotRedrivable } from "./Errors.js"
import type { Attempt, AttemptNotes, Handler, Handlers, Registered } from "./Handlers.js"
import type { Codec, Place } from "./PayloadCodec.js"
import type { Outcome, Run } from "./Run.js"
import { checkpointBytesMax } from "./RunNotes.js"
import type { RunId } from "./RunId.js"
import type { RunRequest } from "./RunRequest.js"
import type { Runs } from "./Runs.js"
import type { Schedule, ScheduleDefinition } from "./schedule/ScheduleDefinition.js"
import { idOf } from "./schedule/ScheduleDefinition.js"
import type { ScheduleCall, Schedules } from "./schedule/Schedules.js"
import { type CodecFailed, isBoundToRun } from "./Sealed.js"
import { resultBytesMax } from "./TaskCodec.js"
import { nameOf } from "./TaskName.js"

/** Longest message of a failure that is encrypted, in characters: with it all failures of one kind and tag look alike. */
const messageMax = 600

/** What this process cannot open is shown as it is: reading a list must not fail for one run of another key. */
const opened = (codec: Codec, text: string, place: Place): string =>
  Either.getOrElse(codec.open(text, place), () => text)

const openRun = (codec: Codec, run: Run): Run => {
  const place = (field: Place["field"]): Place => ({ namespace: run.namespace, run: run.id, task: run.task, field })
  const { failure, payload, result } = run
  return {
    ...run,
    payload: opened(codec, payload, place("payload")),
    result: result === null ? null : opened(codec, result, place("result")),
    failure: failure === null ? null : {
      ...failure,
      message: openMessage(codec, failure.message, place("message")),
      ...failure.error === undefined ? {} : { error: opened(codec, failure.error, place("error")) }
    }
  }
}

// In quotes: what stands in quotes is left out of the fingerprint of a failure.
const sealMessage = (codec: Codec, text: string, place: Place): string =>
  codec.encrypts ? `encrypted: "${codec.seal(text.slice(0, messageMax), place)}"` : text

const openMessage = (codec: Codec, text: string, place: Place): string => {
  const sealed = /^encrypted: "(~[^"]*)"/.exec(text)?.[1]
  return sealed === undefined ? text : opened(codec, sealed, place)
}

/** A request that does not go through `Runs`, as it would leave there. */
export const sealRequest = (codec: Codec, request: RunRequest): RunRequest => {
  // The payload of another request with its identity may take its place, or the other way round.
  const run = request.identity === undefined ? request.id : undefined
  const place = { namespace: request.namespace, run, task: nameOf(request.task), field: "payload" } as const
  return { ...request, payload: codec.seal(request.payload, place) }
}

export const runs = (codec: Codec, inner: Runs["Type"]): Runs["Type"] => ({
  ...inner,
  enqueueMany: (requests) => Effect.suspend(() => inner.enqueueMany(requests.map((each) => sealRequest(codec, each)))),
  get: (id) => Effect.map(inner.get(id), (run) => openRun(codec, run)),
  edit: (id, edit) => {
    const { payload } = edit
    if (payload === undefined) return inner.edit(id, edit)
    return Effect.flatMap(
      inner.get(id),
      ({ namespace, task }) =>
        inner.edit(id, { ...edit, payload: codec.seal(payload, { namespace, run: id, task, field: "payload" }) })
    )
  },
  redrive: (id) =>
    Effect.flatMap(inner.get(id), (run) => {
      if (!isBoundToRun(run.payload) || !isRedrivable(run.state)) return inner.redrive(id)
      const place = (of: RunId) => ({ namespace: run.namespace, run: of, task: run.task, field: "payload" }) as const
      const payload = codec.open(run.payload, place(id))
      return Either.isLeft(payload)
        ? new NotRedrivable({ runId: id, state: run.state, reason: payload.left.message })
        : inner.redrive(id, codec.seal(payload.right, place(redriveId(id, run.finishedAt ?? run.createdAt))))
    }),
  list: (filter) => Effect.map(inner.list(filter), (all) => all.map((run) => openRun(codec, run))),
  awaitFinal: (id) => Effect.map(inner.awaitFinal(id), (run) => openRun(codec, run)),
  changes: (id, after, waitMs) =>
    Effect.map(inner.changes(id, after, waitMs), (answer) => ({
      ...answer,
      changes: answer.changes.map((each) =>
        each.change._tag === "end"
          ? { ...each, change: { ...each.change, run: openRun(codec, each.change.run) } }
          : each
      )
    }))
})

/** Each handler is given what it can read, and what it answers leaves sealed. */
export const handlers = (codec: Codec, inner: Handlers["Type"]): Handlers["Type"] => {
  const known = new Map<string, Registered>()
  return {
    ...inner,
    find: (task) => {
      const before = known.get(task)
      if (before !== undefined) return before
      const found = inner.find(task)
      if (found === undefined) return undefined
      const coded = { ...found, ...codedHandler(codec, nameOf(task), found) }
      known.set(task, coded)
      return coded
    }
  }
}

const codedHandler = (
  codec: Codec,
  task: string,
  { conclude, handler, namespace }: Registered
): Pick<Registered, "handler" | "conclude"> => {
  const placeOf = (run: string) => (field: Place["field"]): Place => ({ namespace, run, task, field })
  const coded: Handler = (text, attempt) => {
    const place = placeOf(attempt.runId)
    const payload = codec.open(text, place("payload"))
    if (Either.isLeft(payload)) return Effect.succeed(unopened(codec, payload.left))
    const effect = handler(payload.right, codedAttempt(codec, attempt, place("checkpoint")))
    // What has ended already needs no fiber.
    return Exit.isExit(effect) && Exit.isSuccess(effect)
      ? Effect.succeed(sealOutcome(codec, effect.value as Outcome, place))
      : Effect.map(effect, (outcome) => sealOutcome(codec, outcome, place))
  }
  return { handler: coded, conclude }
}

const unopened = (codec: Codec, problem: CodecFailed): Outcome => ({
  _tag: "failure",
  failure: { kind: "undecodable", tag: problem._tag, message: problem.message },
  retryable: problem.reason === "unknown-key" && codec.onUnknownKey === "retry"
})

/** What an attempt leaves behind, as others may see it. */
export const sealOutcome = (codec: Codec, outcome: Outcome, place: (field: Place["field"]) => Place): Outcome => {
  if (outcome._tag === "success") {
    const result = codec.seal(outcome.result, place("result"))
    const bytes = result.length * 3 > resultBytesMax ? Buffer.byteLength(result) : 0
    if (bytes <= resultBytesMax) return { _tag: "success", result }
    const message = `the result is ${bytes} bytes as it is sent, the limit is ${resultBytesMax}`
    return { _tag: "failure", failure: { kind: "unencodable", tag: "ResultTooLarge", message }, retryable: false }
  }
  if (outcome._tag !== "failure") return outcome
  const { error, message } = outcome.failure
  return {
    ...outcome,
    failure: {
      ...outcome.failure,
      message: sealMessage(codec, message, place("message")),
      ...error === undefined ? {} : { error: codec.seal(error, place("error")) }
    }
  }
}

const codedAttempt = (codec: Codec, attempt: Attempt["Type"], place: Place): Attempt["Type"] =>
  Object.create(attempt, { notes: { get: () => codedNotes(codec, attempt.notes, place) } }) as Attempt["Type"]

const codedNotes = (codec: Codec, notes: AttemptNotes, place: Place): AttemptNotes => ({
  progress: (json) => notes.progress(json),
  saveCheckpoint: (json) =>
    Effect.suspend(() => {
      const sealed = codec.seal(json, place)
      const bytes = Buffer.byteLength(sealed)
      if (bytes <= checkpointBytesMax) return notes.saveCheckpoint(sealed)
      const limit = `at most ${checkpointBytesMax} bytes as it is sent`
      return Effect.die(new InvalidRequest({ field: "checkpoint", limit, actual: `${bytes} bytes` }))
    }),
  loadCheckpoint: Effect.map(notes.loadCheckpoint, Option.map((text) => opened(codec, text, place)))
})

export const schedules = (codec: Codec, inner: Schedules["Type"]): Schedules["Type"] => {
  const placeOf = ({ namespace, run }: ScheduleDefinition): Place => (
    { namespace, run: undefined, task: nameOf(run.task), field: "payload" }
  )
  const over = (definition: ScheduleDefinition, payload: string) => ({
    ...definition,
    run: { ...definition.run, payload }
  })
  const open = (schedule: Schedule): Schedule => {
    const { definition } = schedule
    return { ...schedule, definition: over(definition, opened(codec, definition.run.payload, placeOf(definition))) }
  }
  const seal = (definition: ScheduleDefinition) =>
    over(definition, codec.seal(definition.run.payload, placeOf(definition)))
  const isSame = (a: ScheduleDefinition, b: ScheduleDefinition) => JSON.stringify(a) === JSON.stringify(b)
  /** A declaration that has not changed must be the very text that is there, and no text is sealed alike twice. */
  const sealed = (call: ScheduleCall): Effect.Effect<ScheduleCall, ClusterUnavailable> => {
    if (!("definition" in call)) return Effect.succeed(call)
    return inner.get(idOf(call.definition)).pipe(
      Effect.map((known) =>
        isSame(open(known).definition, call.definition)
          ? { ...call, definition: known.definition }
          : { ...call, definition: seal(call.definition) }
      ),
      Effect.catchTag("ScheduleNotFound", () => Effect.succeed({ ...call, definition: seal(call.definition) }))
    )
  }
  return {
    ...inner,
    call: (call) => Effect.flatMap(sealed(call), (each) => Effect.map(inner.call(each), open)),
    get: (id) => Effect.map(inner.get(id), open),
    list: (filter) => Effect.map(inner.list(filter), (all) => all.map(open))
  }
}
