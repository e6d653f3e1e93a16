/**
 * When a schedule fires: the union of its sources, without what its exclusions cover, in one zone.
 *
 * A spec is data, stored as JSON text. Instants in it are ms since 1970.
 */
import { Either, ParseResult, Schema } from "effect"
import { InvalidRequest } from "../Errors.js"
import { dayFields, TimeOfDay } from "./CalendarRule.js"
import * as ClockChanges from "./ClockChanges.js"
import { dayMs, yearMax } from "./DaySet.js"
import { zoneLengthMax } from "./ZoneOffsets.js"

/** Most sources, and most exclusions, of one schedule. */
export const partsMax = 50
/** Most instants or dates of one list. */
export const listMax = 1_000
/** Shortest interval: 1 s. */
export const intervalMsMin = 1_000
/** Longest interval: 10 years. */
export const intervalMsMax = 10 * 366 * dayMs
/** Longest jitter: a day. */
export const jitterMsMax = dayMs
/** Largest number of fires that can be asked for. */
export const firesMax = 1_000_000_000

/** An instant of the years 1970 to 2499, in ms. */
export const Instant = Schema.Int.pipe(Schema.between(0, Date.UTC(yearMax + 1, 0, 1) - 1))
const IntervalMs = Schema.Int.pipe(Schema.between(intervalMsMin, intervalMsMax))
const Instants = Schema.NonEmptyArray(Instant).pipe(Schema.maxItems(listMax))

export const Source = Schema.Union(
  /** `CronExpression.parse` says what it may be. */
  Schema.TaggedStruct("cron", { expression: Schema.String }),
  /** Each `everyMs` from `anchor` on, before it too; whatever the clocks on the wall do. Default anchor: 1970. */
  Schema.TaggedStruct("rate", { everyMs: IntervalMs, anchor: Schema.optionalWith(Instant, { exact: true }) }),
  /** `delayMs` after the end of the run before. Only alone. */
  Schema.TaggedStruct("delay", { delayMs: IntervalMs }),
  Schema.TaggedStruct("instants", { at: Instants }),
  Schema.TaggedStruct("calendar", {
    ...dayFields,
    times: Schema.NonEmptyArray(TimeOfDay).pipe(Schema.maxItems(listMax))
  })
)
export type Source = typeof Source.Type

/** `YYYY-MM-DD`, a day that exists. */
const LocalDate = Schema.String.pipe(
  Schema.filter((text) => {
    if (!/^\d{4}-\d\d-\d\d$/.test(text)) return "YYYY-MM-DD"
    const ms = Date.parse(`${text}T00:00:00Z`)
    return Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== text ? "a day that exists" : undefined
  })
)

export const Exclusion = Schema.Union(
  /** Whole days on the wall: holidays. */
  Schema.TaggedStruct("dates", { dates: Schema.NonEmptyArray(LocalDate).pipe(Schema.maxItems(listMax)) }),
  /** Days by rule, whole or from a time until before another (`until` earlier than `from`: until that time of the next day). */
  Schema.TaggedStruct("days", {
    ...dayFields,
    from: Schema.optionalWith(TimeOfDay, { exact: true }),
    until: Schema.optionalWith(TimeOfDay, { exact: true })
  }),
  /** From `from` until before `until`. */
  Schema.TaggedStruct("range", { from: Instant, until: Instant }),
  Schema.TaggedStruct("instants", { at: Instants })
)
export type Exclusion = typeof Exclusion.Type

export const ScheduleSpec = Schema.Struct({
  sources: Schema.NonEmptyArray(Source).pipe(Schema.maxItems(partsMax)),
  exclude: Schema.optionalWith(Schema.Array(Exclusion).pipe(Schema.maxItems(partsMax)), { exact: true }),
  /** IANA name. Default "UTC". */
  zone: Schema.optionalWith(Schema.String.pipe(Schema.maxLength(zoneLengthMax)), { exact: true }),
  /** For wall times that do not happen. Default "shiftForward". */
  gap: Schema.optionalWith(ClockChanges.Gap, { exact: true }),
  /**
   * For wall times that happen twice. Default: "both" for a cron whose hours are a wildcard (it is meant to go on and on),
   * else "first".
   */
  overlap: Schema.optionalWith(ClockChanges.Overlap, { exact: true }),
  /** No fire before. */
  start: Schema.optionalWith(Instant, { exact: true }),
  /** No fire at or after. */
  end: Schema.optionalWith(Instant, { exact: true }),
  /** Runs the schedule makes by itself, then it is exhausted. */
  maxFires: Schema.optionalWith(Schema.Int.pipe(Schema.between(1, firesMax)), { exact: true }),
  /**
   * Runs start up to so much after their nominal time. How much is fixed by the schedule's id, so that schedules of one
   * expression spread, and the distance between the runs of one stays.
   */
  jitterMs: Schema.optionalWith(Schema.Int.pipe(Schema.between(0, jitterMsMax)), { exact: true })
})
export type ScheduleSpec = typeof ScheduleSpec.Type

const decodeUnknown = Schema.decodeUnknownEither(ScheduleSpec, { onExcessProperty: "error", errors: "first" })

/** Reads a spec from a boundary. What no field of it explains is refused by `NextFire.compile`. */
export const decode = (input: unknown): Either.Either<ScheduleSpec, InvalidRequest> =>
  Either.mapLeft(decodeUnknown(input), refusalOf("spec"))

/** The first issue of a decoding as a refusal that names the field. */
export const refusalOf = (root: string) => (error: ParseResult.ParseError): InvalidRequest => {
  const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
  const path = issue?.path.map(String).join(".") ?? ""
  const message = issue?.message ?? error.message
  const [, limit = "valid", actual = message] = /^Expected (.*), actual (.*)$/s.exec(message) ?? []
  return new InvalidRequest({
    field: path === "" ? root : `${root}.${path}`,
    limit: limit.slice(0, 300),
    actual: actual.slice(0, 300)
  })
}
