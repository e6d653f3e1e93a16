/** What a schedule does with a tick that comes late, or while an earlier run is still going. */
import { Schema } from "effect"
import { dayMs } from "./DaySet.js"

/** Longest catch-up window: a year. */
export const catchupWindowMsMax = 366 * dayMs
/** Longest grace: a day. */
export const graceMsMax = dayMs

/**
 * For ticks that were due while nobody was there to make them, longer than `graceMs` ago.
 *
 * - `skip`: all are recorded as missed
 * - `fireOnce`: the last of them makes a run, the others are recorded as missed
 * - `fireAll`: each makes a run, in order
 */
export const Misfire = Schema.Literal("skip", "fireOnce", "fireAll")
export type Misfire = typeof Misfire.Type

/**
 * For a tick that comes while a run of the same schedule is not over.
 *
 * - `skip`: the tick is recorded as skipped
 * - `bufferOne`: it waits for the end of the run; while one waits, further ticks are skipped
 * - `bufferAll`: it waits in line; more than 1,000 are recorded as missed
 * - `cancelOther`: the run is cancelled, and the tick makes its run once that one is over
 * - `allowAll`: it makes its run
 */
export const OverlapPolicy = Schema.Literal("skip", "bufferOne", "bufferAll", "cancelOther", "allowAll")
export type OverlapPolicy = typeof OverlapPolicy.Type

export const SchedulePolicy = Schema.Struct({
  /** Default "fireOnce". */
  misfire: Misfire,
  /** Ticks that are later than this are recorded as missed, whatever `misfire` says. Default: a day. */
  catchupWindowMs: Schema.Int.pipe(Schema.between(0, catchupWindowMsMax)),
  /** A tick that is no later than this is not late. Default: a minute. */
  graceMs: Schema.Int.pipe(Schema.between(0, graceMsMax)),
  /** Default "skip". */
  overlap: OverlapPolicy,
  /** Whether a run that fails for good pauses the schedule. Default: no. */
  pauseOnFailure: Schema.Boolean
})
export type SchedulePolicy = typeof SchedulePolicy.Type

export const standard: SchedulePolicy = {
  misfire: "fireOnce",
  catchupWindowMs: dayMs,
  graceMs: 60_000,
  overlap: "skip",
  pauseOnFailure: false
}

/** Whether a tick makes a run, going by the clock alone. `isLastDue`: the one after it is not due yet. */
export const onTime = (
  policy: SchedulePolicy,
  latenessMs: number,
  isLastDue: boolean
): "fire" | "late" | "coalesced" | "too-late" => {
  if (latenessMs <= policy.graceMs) return "fire"
  if (latenessMs > policy.catchupWindowMs) return "too-late"
  if (policy.misfire === "fireAll" || (policy.misfire === "fireOnce" && isLastDue)) return "fire"
  return policy.misfire === "skip" ? "late" : "coalesced"
}
