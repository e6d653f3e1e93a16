/** An attempt as the handler of a task sees it: progress and checkpoint by the schemas of the task. */
import { Effect, Option, ParseResult, Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import type { Attempt } from "./Handlers.js"
import { checkpointBytesMax, progressBytesMax } from "./RunNotes.js"

export interface TaskAttempt<C, G> extends Omit<Attempt["Type"], "progress"> {
  /**
   * A percentage from 0 to 100, or a value of the task's progress schema of at most 4 KiB. Does not wait: of a second the last
   * value is kept, and the very last before the outcome is. A value that is out of bounds is a defect.
   */
  readonly progress: (value: G) => Effect.Effect<void>
  /** What an earlier attempt of this run saved last, whatever became of it; `none` also when the schema cannot read it any more. */
  readonly checkpoint: Option.Option<C>
  /**
   * Durable when it answers: the next attempt of the run gets it. At most 64 KiB, a larger one is a defect. Each call is a
   * commit: save as often as losing the work in between would hurt.
   */
  readonly saveCheckpoint: (value: C) => Effect.Effect<void>
}

export interface NoteSchemas<C, CI, G, GI> {
  readonly checkpoint: Schema.Schema<C, CI> | undefined
  readonly progress: Schema.Schema<G, GI> | undefined
}

const bounded = (field: string, bytesMax: number) => (json: string): Effect.Effect<string> => {
  // Bytes are counted only where they might be too many.
  const bytes = json.length * 3 > bytesMax ? Buffer.byteLength(json) : 0
  return bytes <= bytesMax
    ? Effect.succeed(json)
    : Effect.die(new InvalidRequest({ field, limit: `at most ${bytesMax} bytes`, actual: `${bytes} bytes` }))
}

const encoder = <A, I>(field: string, schema: Schema.Schema<A, I>, bytesMax: number) => {
  const encode = ParseResult.encode(schema)
  return (value: A): Effect.Effect<string> =>
    Effect.flatMap(encode(value), (encoded) => Effect.sync(() => JSON.stringify(encoded ?? null))).pipe(
      Effect.mapError(ParseResult.parseError),
      Effect.orDie,
      Effect.flatMap(bounded(field, bytesMax))
    )
}

/** Makes the typed attempt of one that the worker has made. */
export const make = <C, CI, G, GI>(
  schemas: NoteSchemas<C, CI, G, GI>
): (raw: Attempt["Type"]) => TaskAttempt<C, G> | Effect.Effect<TaskAttempt<C, G>> => {
  const { checkpoint, progress } = schemas
  const encodeProgress = progress === undefined ? undefined : encoder("progress", progress, progressBytesMax)
  const over = (raw: Attempt["Type"], fields: Readonly<Record<string, unknown>>): TaskAttempt<C, G> => {
    const typed = encodeProgress === undefined ? {} : {
      progress: (value: G) => Effect.map(encodeProgress(value), (json) => raw.notes.progress(json))
    }
    // What it does not say itself, the worker's object does.
    const properties = Object.entries({ ...typed, ...fields }).map(([name, value]) => [name, { value }] as const)
    return Object.create(raw, Object.fromEntries(properties)) as TaskAttempt<C, G>
  }
  // As nearly all tasks are: nothing is made for them. The worker's object has no checkpoint, as a property.
  if (checkpoint === undefined && progress === undefined) return (raw) => raw as unknown as TaskAttempt<C, G>
  if (checkpoint === undefined) return (raw) => over(raw, {})
  const encode = encoder("checkpoint", checkpoint, checkpointBytesMax)
  const decode = Schema.decodeUnknown(Schema.parseJson(checkpoint))
  const unreadable = (raw: Attempt["Type"]) => (issue: ParseResult.ParseError) =>
    Effect.as(
      raw.log(`the checkpoint of an earlier attempt cannot be read, it begins anew: ${issue.message}`),
      Option.none<C>()
    )
  return (raw) =>
    raw.notes.loadCheckpoint.pipe(
      Effect.flatMap(Option.match({
        onNone: () => Effect.succeed(Option.none<C>()),
        onSome: (json) => Effect.catchAll(Effect.asSome(decode(json)), unreadable(raw))
      })),
      Effect.map((found) =>
        over(raw, {
          checkpoint: found,
          saveCheckpoint: (value: C) => Effect.flatMap(encode(value), raw.notes.saveCheckpoint)
        })
      )
    )
}
