/** A schedule as its users define it, and as readers see it. */
import { Either, Schema } from "effect"
import { InvalidRequest, type PayloadTooLarge } from "../Errors.js"
import { Name } from "../Name.js"
import { priorityMax } from "../Run.js"
import { RunId } from "../RunId.js"
import { backfillLimit, limitsPerRunMax, parseKeys, type RunKeys } from "../RunKeys.js"
import { VersionedName } from "../TaskName.js"
import { defaultPolicy, parsePolicy, requestProblem, type RunRequest } from "../RunRequest.js"
import * as NextFire from "./NextFire.js"
import * as ScheduleMachine from "./ScheduleMachine.js"
import * as scheduleRunId from "./scheduleRunId.js"
import { SchedulePolicy } from "./SchedulePolicy.js"
import { ScheduleSpec } from "./ScheduleSpec.js"
import { Outcome, Reason, ScheduleState } from "./ScheduleState.js"

/** Largest definition, as JSON, payload included: all schedules of a partition are in memory. */
export const definitionCharsMax = 64 * 1024

/** What each tick enqueues. */
export const RunTemplate = Schema.Struct({
  queue: Name,
  /** With the version of its payload. */
  task: VersionedName,
  /** JSON text. */
  payload: Schema.String,
  priority: Schema.Int.pipe(Schema.between(0, priorityMax)),
  /** JSON text of a `RunPolicy`. Successful runs are kept whatever it says: they prove that a tick was made. */
  policy: Schema.String,
  /** JSON text of `RunKeys`; `null`: none. */
  keys: Schema.NullOr(Schema.String)
})
export type RunTemplate = typeof RunTemplate.Type

export const ScheduleDefinition = Schema.Struct({
  namespace: Name,
  name: Name,
  spec: ScheduleSpec,
  policy: SchedulePolicy,
  run: RunTemplate,
  /** Of the code that declares it; a lower one never replaces a higher. `null`: made by hand. */
  version: Schema.NullOr(Schema.Int.pipe(Schema.nonNegative()))
})
export type ScheduleDefinition = typeof ScheduleDefinition.Type

/** `|` cannot be part of a name. */
export const idOf = ({ name, namespace }: Pick<ScheduleDefinition, "name" | "namespace">): string =>
  `${namespace}|${name}`

export const Schedule = Schema.Struct({
  definition: ScheduleDefinition,
  state: ScheduleState,
  /** By the database clock. */
  createdAt: Schema.Number,
  /** How long after its time the last tick was made, ms; `null`: none yet. */
  latenessMs: Schema.NullOr(Schema.Number)
})
export type Schedule = typeof Schedule.Type

/** What became of a tick, or of `count` ticks in a row. */
export const Tick = Schema.Struct({
  first: Schema.Number,
  last: Schema.Number,
  count: Schema.Int,
  outcome: Outcome,
  reason: Reason,
  runId: Schema.NullOr(RunId),
  /** When it was decided. */
  at: Schema.Number
})
export type Tick = typeof Tick.Type

/** The request for the run of one tick. */
export const requestOf = (
  definition: ScheduleDefinition,
  start: { readonly runId: RunId; readonly at: number; readonly isBackfill?: true },
  resend: boolean
): RunRequest => ({
  id: start.runId,
  namespace: definition.namespace,
  queue: definition.run.queue,
  task: definition.run.task,
  payload: definition.run.payload,
  priority: definition.run.priority,
  when: { _tag: "at", ms: start.at },
  policy: keptPolicy(definition.run.policy),
  keys: start.isBackfill === true ? backfillKeys(definition.run.keys) : definition.run.keys,
  resend
})

/** Those of a run that fills a range: by them the owner of its queue knows it, and every owner after that one. */
const backfillKeys = (text: string | null): string => {
  const keys = text === null ? {} : JSON.parse(text) as RunKeys
  return JSON.stringify({ ...keys, limits: [...keys.limits ?? [], backfillLimit] } satisfies RunKeys)
}

/** Why its queue would not take the runs of a backfill, if it would not. */
export const backfillProblem = ({ run }: ScheduleDefinition): InvalidRequest | undefined => {
  const keys = backfillKeys(run.keys)
  const { limits } = JSON.parse(keys) as RunKeys
  if (limits!.length > limitsPerRunMax) {
    const limit = `of a task with at most ${limitsPerRunMax - 1} concurrency limits: a backfill has one of its own`
    return new InvalidRequest({ field: "backfill", limit, actual: String(limits!.length - 1) })
  }
  const parsed = parseKeys(keys)
  return parsed instanceof InvalidRequest ? parsed : undefined
}

const keptPolicy = (text: string): string => {
  const policy = parsePolicy(text)
  return "retry" in policy && policy.retention === "none" ? JSON.stringify({ ...policy, retention: "keep" }) : text
}

/** Ready for searching; or why the definition is refused: its size, its spec, or the runs it would make. */
export const check = (
  definition: ScheduleDefinition
): Either.Either<NextFire.NextFire, InvalidRequest | PayloadTooLarge> => {
  const { length } = JSON.stringify(definition)
  if (length > definitionCharsMax) {
    const limit = `at most ${definitionCharsMax} characters as JSON`
    return Either.left(new InvalidRequest({ field: "definition", limit, actual: `${length}` }))
  }
  return Either.flatMap(NextFire.compile(definition.spec), (fires) => {
    const sample = { runId: scheduleRunId.ofTick(idOf(definition), 0), at: 0 }
    // Smaller than the definition it is part of, and so than any bound of payloads.
    const problem = requestProblem(requestOf(definition, sample, false), definitionCharsMax)
    return problem === undefined ? Either.right(fires) : Either.left(problem)
  })
}

export const defaultRunPolicy = JSON.stringify(defaultPolicy)

export interface UpcomingTick {
  readonly nominal: number
  /** With the jitter of the schedule. */
  readonly at: number
  /** By `skipNext` or `skipAt`. */
  readonly isSkipped: boolean
}

/** The next ticks of a schedule as it stands, skipped ones included; fewer when it ends before. */
export const upcoming = (
  { state }: Pick<Schedule, "state">,
  fires: NextFire.NextFire,
  count: number
): ReadonlyArray<UpcomingTick> => {
  const found: Array<UpcomingTick> = []
  const jitterMs = ScheduleMachine.jitterOf(state)
  let left = state.maxFires === null ? Number.POSITIVE_INFINITY : state.maxFires - state.fires - state.buffer.length
  let skips = state.skipNext
  for (let at = state.nextAt; at !== null && found.length < count && left > 0; at = fires.next(at) ?? null) {
    const isAsked = state.skipAt.includes(at)
    const isSkipped = isAsked || skips > 0
    if (!isAsked && skips > 0) skips -= 1
    if (!isSkipped) left -= 1
    found.push({ nominal: at, at: at + jitterMs, isSkipped })
  }
  return found
}
