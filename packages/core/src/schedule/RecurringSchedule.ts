/**
 * A schedule declared in code: what fires when, and the task with its typed payload that each tick enqueues.
 *
 * `reconcile` brings what the cluster has in line with what the code declares, as part of a deploy: a higher `version` replaces a
 * lower one, and a lower one changes nothing, so that a stale deploy, or an old node that starts once more, cannot undo a
 * newer one.
 */
import { Duration, Effect, Either, Option, Schema } from "effect"
import { InvalidRequest, type PayloadInvalid } from "../Errors.js"
import { defaultPriority } from "../Run.js"
import type { RunRequest } from "../RunRequest.js"
import * as ScheduleDefinition from "./ScheduleDefinition.js"
import * as SchedulePolicy from "./SchedulePolicy.js"
import * as ScheduleSpec from "./ScheduleSpec.js"
import { type ScheduleError, Schedules } from "./Schedules.js"

export interface RecurringSchedule {
  readonly name: string
  /** `namespace|name`. */
  readonly id: string
  /** What is sent to the cluster. Fails when the payload does not fit its schema. */
  readonly definition: Effect.Effect<ScheduleDefinition.ScheduleDefinition, PayloadInvalid | InvalidRequest>
}

/** What a schedule needs of a task. */
export interface TaskOf<P> {
  readonly name: string
  readonly queue: string
  readonly namespace: string
  readonly request: (payload: P) => Effect.Effect<RunRequest, PayloadInvalid | InvalidRequest>
}

export interface RecurringScheduleOptions<P> {
  /** Grows with each change of the declaration. */
  readonly version: number
  readonly task: TaskOf<P>
  readonly payload: P
  /** 5 fields, 6 with seconds first, or an alias. `cron`, `every`, `at` and `sources` unite; at least one is needed. */
  readonly cron?: string | ReadonlyArray<string>
  /** At a fixed rate. */
  readonly every?: Duration.DurationInput
  readonly at?: ReadonlyArray<Date>
  readonly sources?: ReadonlyArray<ScheduleSpec.Source>
  readonly exclude?: ReadonlyArray<ScheduleSpec.Exclusion>
  /** Default "UTC". */
  readonly zone?: string
  readonly gap?: ScheduleSpec.ScheduleSpec["gap"]
  readonly overlap?: ScheduleSpec.ScheduleSpec["overlap"]
  readonly start?: Date
  readonly end?: Date
  readonly maxFires?: number
  readonly jitter?: Duration.DurationInput
  /** What is left out is as in `SchedulePolicy.standard`. */
  readonly policy?: Partial<SchedulePolicy.SchedulePolicy>
  /** 0 most urgent, 9 least; default 5. */
  readonly priority?: number
}

/** Defines a schedule. Throws `InvalidRequest` on a bad option, naming it: a wrong definition is a mistake in the program. */
export const make = <P>(name: string, options: RecurringScheduleOptions<P>): RecurringSchedule => {
  const spec = orThrow(specOf(options))
  const policy = orThrow(
    Either.mapLeft(
      Schema.decodeUnknownEither(SchedulePolicy.SchedulePolicy)({ ...SchedulePolicy.standard, ...options.policy }),
      ScheduleSpec.refusalOf("policy")
    )
  )
  const { namespace, queue } = options.task
  const base = { namespace, name, spec, policy, version: options.version }
  const run = { queue, task: options.task.name, priority: options.priority ?? defaultPriority }
  const placeholder = {
    ...run,
    ...{ payload: "null", policy: ScheduleDefinition.defaultRunPolicy, keys: null }
  }
  const checked = orThrow(
    Either.mapLeft(
      Schema.decodeUnknownEither(ScheduleDefinition.ScheduleDefinition)({ ...base, run: placeholder }),
      ScheduleSpec.refusalOf("schedule")
    )
  )
  const problem = ScheduleDefinition.check(checked)
  if (Either.isLeft(problem)) throw problem.left
  return {
    name,
    id: ScheduleDefinition.idOf(base),
    definition: Effect.map(
      options.task.request(options.payload),
      ({ keys, payload, policy: runPolicy, task }) => ({
        ...base,
        run: { ...run, task, payload, policy: runPolicy, keys }
      })
    )
  }
}

/** Declares the schedules to the cluster: made, replaced by a higher version, or left as they are. May be repeated. */
export const reconcile = (
  schedules: ReadonlyArray<RecurringSchedule>
): Effect.Effect<void, ScheduleError | PayloadInvalid, Schedules> =>
  Effect.flatMap(Schedules, ({ call }) =>
    Effect.forEach(
      schedules,
      ({ definition }) => Effect.flatMap(definition, (each) => call({ _tag: "declare", definition: each })),
      { discard: true, concurrency: 16 }
    ))

const orThrow = <A>(result: Either.Either<A, InvalidRequest>): A => Either.getOrThrowWith(result, (problem) => problem)

const millis = (field: string, input: Duration.DurationInput): Either.Either<number, InvalidRequest> =>
  Option.match(Duration.decodeUnknown(input), {
    onNone: () => Either.left(new InvalidRequest({ field, limit: "a duration", actual: String(input) })),
    onSome: (duration) => Either.right(Math.round(Duration.toMillis(duration)))
  })

const specOf = <P>(options: RecurringScheduleOptions<P>): Either.Either<ScheduleSpec.ScheduleSpec, InvalidRequest> =>
  Either.gen(function*() {
    const sources: Array<unknown> = [...options.sources ?? []]
    const expressions = options.cron === undefined ? [] : [options.cron].flat()
    for (const expression of expressions) sources.push({ _tag: "cron", expression })
    if (options.every !== undefined) sources.push({ _tag: "rate", everyMs: yield* millis("every", options.every) })
    if (options.at !== undefined) sources.push({ _tag: "instants", at: options.at.map((at) => at.getTime()) })
    const { end, exclude, gap, maxFires, overlap, start, zone } = options
    const jitterMs = options.jitter === undefined ? undefined : yield* millis("jitter", options.jitter)
    const parts = { exclude, zone, gap, overlap, maxFires, jitterMs, start: start?.getTime(), end: end?.getTime() }
    const given = Object.entries(parts).filter(([, value]) => value !== undefined)
    return yield* ScheduleSpec.decode({ sources, ...Object.fromEntries(given) })
  })
