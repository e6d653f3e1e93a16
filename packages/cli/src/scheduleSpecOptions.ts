/** The flags that say when a schedule fires, and the spec they make together. */
import { Options } from "@effect/cli"
import { InvalidRequest } from "@orrery/core/Errors"
import * as ClockChanges from "@orrery/core/schedule/ClockChanges"
import * as NextFire from "@orrery/core/schedule/NextFire"
import * as ScheduleSpec from "@orrery/core/schedule/ScheduleSpec"
import { Duration, Either, Option } from "effect"

/** A date is midnight UTC; a time needs its offset, since whose wall it is on cannot be guessed. */
const instantPattern = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:\d\d))?$/i
const instantForm = "must be an instant: 2026-03-08T06:59:00Z, 2026-03-08T01:59-05:00, or 2026-03-08 (midnight UTC)"

const instantOf = (text: string): Option.Option<number> => {
  const ms = instantPattern.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(ms) ? Option.none() : Option.some(ms)
}

export const instant = (name: string) =>
  Options.text(name).pipe(
    Options.withPseudoName("INSTANT"),
    Options.filterMap(instantOf, instantForm)
  )

const durationForm = "must be a duration, as \"90 seconds\" or \"2 hours\""
const durationOf = (text: string): Option.Option<number> =>
  Option.map(Duration.decodeUnknown(text), (duration) => Math.round(Duration.toMillis(duration)))

export const durationMs = (name: string) =>
  Options.text(name).pipe(
    Options.withPseudoName("DURATION"),
    Options.filterMap(durationOf, durationForm)
  )

export const flags = {
  cron: Options.text("cron").pipe(
    Options.withPseudoName("EXPR"),
    Options.withDescription(
      "5 fields, or 6 with seconds first, or @hourly @daily @weekly @monthly @yearly. Several unite."
    ),
    Options.repeated
  ),
  every: Options.text("every").pipe(
    Options.withPseudoName("DURATION"),
    Options.withDescription("Interval at a fixed rate, counted from 1970 or --start. Several unite."),
    Options.repeated,
    Options.filterMap((texts) => Option.all(texts.map(durationOf)), durationForm)
  ),
  at: Options.text("at").pipe(
    Options.withPseudoName("INSTANT"),
    Options.withDescription("A single instant. Several unite."),
    Options.repeated,
    Options.filterMap((texts) => Option.all(texts.map(instantOf)), instantForm)
  ),
  spec: Options.text("spec").pipe(
    Options.withPseudoName("JSON"),
    Options.withDescription(
      "A whole spec, for calendar rules and exclusions of all kinds. Instead of the other flags."
    ),
    Options.optional
  ),
  zone: Options.text("zone").pipe(
    Options.withDescription("IANA time zone of expressions and excluded dates. Default: UTC."),
    Options.optional
  ),
  gap: Options.choice("gap", ClockChanges.Gap.literals).pipe(
    Options.withDescription("For wall times that do not happen as clocks go forward. Default: shiftForward."),
    Options.optional
  ),
  overlap: Options.choice("overlap", ClockChanges.Overlap.literals).pipe(
    Options.withDescription(
      "For wall times that happen twice as clocks go back. Default: both where the hours are a wildcard, else first."
    ),
    Options.optional
  ),
  excludeDate: Options.text("exclude-date").pipe(
    Options.withPseudoName("YYYY-MM-DD"),
    Options.withDescription("A day of the zone without fires. May be repeated."),
    Options.repeated
  ),
  start: instant("start").pipe(Options.withDescription("No fire before."), Options.optional),
  end: instant("end").pipe(Options.withDescription("No fire at or after."), Options.optional)
}

type Parsed = { readonly [K in keyof typeof flags]: (typeof flags)[K] extends Options.Options<infer A> ? A : never }

const given = <K extends string, A>(key: K, value: Option.Option<A>): { readonly [P in K]?: A } =>
  Option.isSome(value) ? { [key]: value.value } as { readonly [P in K]?: A } : {}

const jsonOf = (text: string): Either.Either<unknown, InvalidRequest> =>
  Either.try({
    try: (): unknown => JSON.parse(text),
    catch: () => new InvalidRequest({ field: "spec", limit: "JSON", actual: text.slice(0, 300) })
  })

/** Refusals name the flag's field, the limit and what was given. */
export const specOf = (parsed: Parsed): Either.Either<ScheduleSpec.ScheduleSpec, InvalidRequest> => {
  if (Option.isSome(parsed.spec)) return Either.flatMap(jsonOf(parsed.spec.value), ScheduleSpec.decode)
  if (parsed.cron.length + parsed.every.length + parsed.at.length === 0) {
    return Either.left(
      new InvalidRequest({ field: "schedule", limit: "given by --cron, --every, --at or --spec", actual: "none" })
    )
  }
  const anchor = given("anchor", parsed.start)
  return ScheduleSpec.decode({
    sources: [
      ...parsed.cron.map((expression) => ({ _tag: "cron", expression })),
      ...parsed.every.map((everyMs) => ({ _tag: "rate", everyMs, ...anchor })),
      ...(parsed.at.length === 0 ? [] : [{ _tag: "instants", at: parsed.at }])
    ],
    ...(parsed.excludeDate.length === 0 ? {} : { exclude: [{ _tag: "dates", dates: parsed.excludeDate }] }),
    ...given("zone", parsed.zone),
    ...given("gap", parsed.gap),
    ...given("overlap", parsed.overlap),
    ...given("start", parsed.start),
    ...given("end", parsed.end)
  })
}

export const compiled = (parsed: Parsed): Either.Either<NextFire.NextFire, InvalidRequest> =>
  Either.flatMap(specOf(parsed), NextFire.compile)
