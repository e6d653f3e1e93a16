/** What applications do with schedules, from anywhere: inside a node, or over the wire. */
import { Context, type Effect, Schema } from "effect"
import { ClusterUnavailable, InvalidRequest, PayloadTooLarge } from "../Errors.js"
import { type Schedule, ScheduleDefinition, type Tick } from "./ScheduleDefinition.js"
import { RevisionConflict } from "./ScheduleState.js"
import type { ScheduleFilter } from "./ScheduleStore.js"

/** No schedule has this id. */
export class ScheduleNotFound
  extends Schema.TaggedError<ScheduleNotFound>("@orrery/core/ScheduleNotFound")("ScheduleNotFound", {
    schedule: Schema.String
  })
{
  override get message() {
    return `schedule ${this.schedule} not found`
  }
}

/** Another schedule has this name. Nothing was done. */
export class ScheduleExists
  extends Schema.TaggedError<ScheduleExists>("@orrery/core/ScheduleExists")("ScheduleExists", {
    schedule: Schema.String
  })
{
  override get message() {
    return `schedule ${this.schedule} exists already`
  }
}

const common = {
  /** `namespace|name`. */
  id: Schema.String.pipe(Schema.maxLength(401)),
  /** The revision the caller has seen: at any other nothing is done. Left out: whatever it is. */
  expected: Schema.optionalWith(Schema.Int, { exact: true })
}

/** What can be asked of a schedule. All of it may be asked again when no answer came. */
export const ScheduleCall = Schema.Union(
  Schema.TaggedStruct("create", { definition: ScheduleDefinition }),
  /**
   * What a release of the code says of it. A higher version replaces a lower one, pauses and skips stay; a lower one changes
   * nothing, so that a stale deploy cannot undo a newer one.
   */
  Schema.TaggedStruct("declare", { definition: ScheduleDefinition }),
  /** Another spec, policy or run, from now on. */
  Schema.TaggedStruct("update", {
    definition: ScheduleDefinition,
    expected: Schema.optionalWith(Schema.Int, { exact: true })
  }),
  Schema.TaggedStruct("delete", common),
  Schema.TaggedStruct("pause", { ...common, by: Schema.String, why: Schema.String }),
  /** Ticks of the pause are recorded as skipped. */
  Schema.TaggedStruct("resume", common),
  /** The next `count` ticks make no run; 0 takes it back. */
  Schema.TaggedStruct("skipNext", { ...common, count: Schema.Int }),
  /** The tick of that instant makes no run. */
  Schema.TaggedStruct("skipAt", { ...common, nominal: Schema.Number }),
  /** A run now, paused or not, beside whatever runs. `requestId` and `at` name the run. */
  Schema.TaggedStruct("trigger", { ...common, requestId: Schema.String, at: Schema.Number }),
  /** Runs for the ticks from `from` to `until`, both included, that have none yet. One at a time per schedule. */
  Schema.TaggedStruct("backfill", {
    ...common,
    from: Schema.Number,
    until: Schema.Number,
    order: Schema.Literal("oldest", "newest"),
    perMinute: Schema.Int
  }),
  Schema.TaggedStruct("cancelBackfill", common)
)
export type ScheduleCall = typeof ScheduleCall.Type

export const ScheduleError = Schema.Union(
  ScheduleNotFound,
  ScheduleExists,
  RevisionConflict,
  InvalidRequest,
  PayloadTooLarge,
  ClusterUnavailable
)
export type ScheduleError = typeof ScheduleError.Type

/**
 * PORT. An answer means that PostgreSQL has committed it.
 */
export class Schedules extends Context.Tag("@orrery/core/Schedules")<Schedules, {
  /** Answers with the schedule as it is then; a deleted one as it was last. */
  readonly call: (call: ScheduleCall) => Effect.Effect<Schedule, ScheduleError>
  readonly get: (id: string) => Effect.Effect<Schedule, ScheduleNotFound | ClusterUnavailable>
  /** By id. Only an empty page is the end. */
  readonly list: (filter: ScheduleFilter) => Effect.Effect<ReadonlyArray<Schedule>, ClusterUnavailable>
  /** What became of its ticks, the newest first; kept for 30 days. `limit`: 1 to 500. */
  readonly ticks: (id: string, limit: number) => Effect.Effect<ReadonlyArray<Tick>, ClusterUnavailable>
}>() {}
