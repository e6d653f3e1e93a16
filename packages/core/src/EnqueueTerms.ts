/** What a caller says of one enqueue, and what all runs of it have in common. */
import { Clock, Duration, Effect, Option } from "effect"
import type { WhenFull } from "./Backpressure.js"
import { InvalidRequest } from "./Errors.js"
import type { IdentityRule } from "./Identity.js"
import { defaultPriority } from "./Run.js"
import type { RunId } from "./RunId.js"
import type { RunRequest } from "./RunRequest.js"
import type * as TaskIdentity from "./TaskIdentity.js"
import type * as TaskKeys from "./TaskKeys.js"
import * as TraceParent from "./TraceParent.js"

export interface EnqueueOptions extends TaskKeys.KeyOverrides, TaskIdentity.IdentityOverrides, WhenFull {
  /** 0 most urgent, 9 least; default 5. */
  readonly priority?: number
  /** From now, by the database clock. */
  readonly delay?: Duration.DurationInput
  /** An instant, by the database clock. Not together with `delay`. */
  readonly at?: Date
}

/** What became of a request. */
export interface EnqueueResult {
  /** Of the run that stands for it. */
  readonly id: RunId
  /** The request has made it; else it was there before. */
  readonly isNew: boolean
}

/** What all runs of one call have in common. */
export interface Terms extends TaskKeys.KeyOverrides, TaskIdentity.IdentityOverrides {
  readonly nowMs: number
  readonly when: RunRequest["when"]
  readonly priority: number
  readonly trace: string | undefined
}

export const termsOf = (
  { at, delay, priority = defaultPriority, ...overrides }: EnqueueOptions,
  rule: IdentityRule | undefined
): Effect.Effect<Terms, InvalidRequest> => {
  if (rule?._tag === "debounce") {
    if (delay !== undefined || at !== undefined) {
      const field = delay === undefined ? "at" : "delay"
      return new InvalidRequest({ field, limit: "absent for a task with debounce", actual: String(delay ?? at) })
    }
    delay = rule.quietMs
  }
  const when = whenOf({ at, delay: delay ?? (at === undefined ? Duration.zero : undefined) })
  if (when instanceof InvalidRequest) return when
  return Effect.zipWith(
    Clock.currentTimeMillis,
    TraceParent.current,
    (nowMs, trace) => ({ nowMs, when, priority, trace, ...overrides })
  )
}

/** Of a caller who has said when; `delay` and `at` exclude each other. */
export const whenOf = ({ at, delay }: {
  readonly delay?: Duration.DurationInput | undefined
  readonly at?: Date | undefined
}): RunRequest["when"] | InvalidRequest => {
  if (delay !== undefined && at !== undefined) {
    return new InvalidRequest({ field: "at", limit: "absent when delay is given", actual: String(at) })
  }
  if (at !== undefined) return { _tag: "at", ms: at.getTime() }
  const wait = Option.getOrUndefined(Duration.decodeUnknown(delay))
  return wait === undefined
    ? new InvalidRequest({ field: "delay", limit: "a duration", actual: String(delay) })
    : { _tag: "delay", ms: Duration.toMillis(wait) }
}

/** A run whose time comes when it is over already. Of an instant, by the clock of the caller. */
export const deadlineProblem = ({ nowMs, when }: Terms, deadlineMs: number | undefined): InvalidRequest | undefined => {
  if (deadlineMs === undefined) return undefined
  const delayMs = when._tag === "delay" ? when.ms : when.ms - nowMs
  if (delayMs < deadlineMs) return undefined
  const limit = `earlier than the deadline of the task, ${deadlineMs} ms after the enqueue`
  return new InvalidRequest({ field: when._tag, limit, actual: `${delayMs} ms after it` })
}
