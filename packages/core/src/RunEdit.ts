/** What may be changed of a run that waits, and the checks every boundary makes on it. */
import { Schema } from "effect"
import type { Edit } from "./Entry.js"
import { InvalidRequest, type PayloadTooLarge } from "./Errors.js"
import type { StoredRun } from "./Journal.js"
import { Name, nameLengthMax } from "./Name.js"
import { RunId } from "./RunId.js"
import { parsePolicy, payloadProblem, priorityProblem, whenProblem } from "./RunRequest.js"
import { nameOf, partsOf, versioned, versionMax } from "./TaskName.js"

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/** What is left out stays as it is. One of `payload`, `priority` and `when` at least. */
export const RunEdit = Schema.Struct({
  /** Name of the task the caller takes the run for; a run of another one is refused. Left out: of any. */
  task: optional(Name),
  /** JSON text, encoded by the task's payload schema. */
  payload: optional(Schema.String),
  /** Of that payload, 1 to 9,999. Left out: the version that the run has. */
  version: optional(Schema.Int.pipe(Schema.between(1, versionMax))),
  /** 0 (most urgent) to 9. */
  priority: optional(Schema.Int),
  /** `delay`: ms from now by the owner's estimate of the database clock. `at`: an instant, ms since 1970. */
  when: optional(Schema.Struct({ _tag: Schema.Literal("delay", "at"), ms: Schema.Number }))
})
export type RunEdit = typeof RunEdit.Type

/** A run as it waits from its edit on. */
export const Edited = Schema.Struct({
  id: RunId,
  state: Schema.Literal("scheduled", "ready", "retrying"),
  priority: Schema.Int,
  /** Ms since 1970 by the database clock. */
  scheduledAt: Schema.Number
})
export type Edited = typeof Edited.Type

const invalid = (field: string, limit: string, actual: string) => new InvalidRequest({ field, limit, actual })

/** The first thing wrong with an edit, whatever its run, or `undefined`. */
export const editProblem = (
  { payload, priority, task = "the run", version, when }: RunEdit,
  payloadBytesMax: number
): InvalidRequest | PayloadTooLarge | undefined => {
  if (payload === undefined && version !== undefined) {
    return invalid("version", "absent without a payload", String(version))
  }
  if (payload === undefined && priority === undefined && when === undefined) {
    return invalid("edit", "of payload, priority, delay or at", "none of them")
  }
  if (version !== undefined && !(Number.isInteger(version) && version >= 1 && version <= versionMax)) {
    return invalid("version", `1 to ${versionMax}`, String(version))
  }
  return (priority === undefined ? undefined : priorityProblem(priority))
    ?? (when === undefined ? undefined : whenProblem(when))
    ?? (payload === undefined ? undefined : payloadProblem(task, payload, payloadBytesMax))
}

/** What its owner makes of the edit of this run, at `now` by the database clock; or why it refuses it. */
export const changeOf = (
  { payload, priority, task, version, when }: RunEdit,
  run: Pick<StoredRun, "task" | "policy" | "createdAt">,
  now: number
): Edit | InvalidRequest => {
  const name = nameOf(run.task)
  if (task !== undefined && task !== name) return invalid("task", `that of the run, ${name}`, task)
  const edited = versioned(name, version ?? partsOf(run.task).version)
  if (edited.length > nameLengthMax) return invalid("version", `one that fits to a name of ${name.length}`, edited)
  const scheduledAt = when === undefined ? undefined : instantOf(when, now)
  const { deadlineMs } = deadlineOf(run.policy)
  if (scheduledAt !== undefined && scheduledAt >= run.createdAt + deadlineMs) {
    const limit = `before the deadline of the run, ${isoOf(run.createdAt + deadlineMs)}`
    return invalid(when!._tag, limit, isoOf(scheduledAt))
  }
  return {
    ...payload === undefined ? {} : { payload, task: edited },
    ...priority === undefined ? {} : { priority },
    ...scheduledAt === undefined ? {} : { scheduledAt }
  }
}

/** As of an enqueue: never early by a fraction, and what is due is due now. */
const instantOf = ({ _tag, ms }: NonNullable<RunEdit["when"]>, now: number): number => {
  const at = Math.ceil(_tag === "delay" ? now + ms : ms)
  return ms === 0 || at <= now ? Math.floor(now) : at
}

const deadlineOf = (text: string): { readonly deadlineMs: number } => {
  const policy = parsePolicy(text)
  return { deadlineMs: "retry" in policy ? policy.deadlineMs ?? Infinity : Infinity }
}

const isoOf = (ms: number): string => ms <= 8.64e15 ? new Date(ms).toISOString() : String(ms)
