/** A schedule as its actor holds it, and the words in which the machine says what it has decided. */
import { Schema } from "effect"
import type { InvalidRequest } from "../Errors.js"
import { RunId } from "../RunId.js"
import { jitterMsMax } from "./ScheduleSpec.js"
import { SchedulePolicy } from "./SchedulePolicy.js"

/** Most ticks that wait in the buffer of a schedule, and most instants of `skipAt`. */
export const bufferMax = 1_000
export const skipNextMax = 1_000_000
/** Longest `by` and `why`, in characters. */
export const reasonLengthMax = 1_000

export const Paused = Schema.Struct({ by: Schema.String, why: Schema.String, at: Schema.Number })

/** Runs asked for over a range in the past (or future), made bit by bit. */
export const Backfill = Schema.Struct({
  /** The range, both ends included. What is done is cut off it. */
  from: Schema.Number,
  until: Schema.Number,
  order: Schema.Literal("oldest", "newest"),
  perMinute: Schema.Int,
  nextAt: Schema.Number
})
export type Backfill = typeof Backfill.Type

export const ScheduleState = Schema.Struct({
  /** `namespace/name`. */
  id: Schema.String,
  /** Grows by one with each operation. */
  revision: Schema.Int,
  policy: SchedulePolicy,
  jitterMs: Schema.Int.pipe(Schema.between(0, jitterMsMax)),
  maxFires: Schema.NullOr(Schema.Int),
  paused: Schema.NullOr(Paused),
  /** Ticks up to here are skipped: the schedule was paused then. */
  pausedUntil: Schema.Number,
  /** Nominal time of the next tick; `null`: exhausted, or waiting for the end of a run. */
  nextAt: Schema.NullOr(Schema.Number),
  /** Runs made by ticks. */
  fires: Schema.Int,
  skipNext: Schema.Int,
  /** Nominal times to leave out, in order. */
  skipAt: Schema.Array(Schema.Number),
  /** Nominal times of ticks that wait for the end of a run, in order. */
  buffer: Schema.Array(Schema.Number),
  /** Runs not known to be over. Kept only where a policy asks. */
  open: Schema.Array(RunId),
  backfill: Schema.NullOr(Backfill),
  missed: Schema.Int,
  skipped: Schema.Int
})
export type ScheduleState = typeof ScheduleState.Type

export const Outcome = Schema.Literal("enqueued", "skipped", "missed")
/**
 * Why. Skipped: `asked` (skipNext, skipAt), `paused`, `overlap`. Missed: `late` (misfire is skip), `coalesced` (fireOnce made
 * a later one), `too-late` (before the catch-up window), `buffer-full`, `refused` (its queue did not take the run). Enqueued: `tick`, `buffered`, `trigger`, `backfill`.
 */
export const Reason = Schema.Literal(
  ...[
    "tick",
    "buffered",
    "trigger",
    "backfill",
    "asked",
    "paused",
    "overlap",
    "late",
    "coalesced",
    "too-late"
  ] as const,
  ...["buffer-full", "refused"] as const
)
export type Reason = typeof Reason.Type

/** What became of ticks: of one that made a run, or of `count` in a row, from `first` to `last`, that did not. */
export interface TickRecord {
  readonly first: number
  readonly last: number
  readonly count: number
  readonly outcome: typeof Outcome.Type
  readonly reason: Reason
  readonly runId: RunId | null
}

export interface Start {
  readonly runId: RunId
  readonly nominal: number
  /** No earlier than this. */
  readonly at: number
  /** It fills a range: such runs together have at most half of the slots. */
  readonly isBackfill?: true
}

/** To be made durable together with the state; runs are started and cancelled thereafter. */
export interface Decisions {
  readonly starts: ReadonlyArray<Start>
  readonly cancels: ReadonlyArray<RunId>
  readonly records: ReadonlyArray<TickRecord>
}

export interface Step {
  readonly state: ScheduleState
  readonly decisions: Decisions
}

/** The schedule has changed since the caller looked. Nothing was done. */
export class RevisionConflict
  extends Schema.TaggedError<RevisionConflict>("@orrery/core/RevisionConflict")("RevisionConflict", {
    schedule: Schema.String,
    expected: Schema.Int,
    actual: Schema.Int
  })
{
  override get message() {
    return `schedule ${this.schedule} is at revision ${this.actual}, not ${this.expected}`
  }
}

export type Refusal = RevisionConflict | InvalidRequest
