/**
 * The next fire of a spec: the one module that knows how. Pure; time comes in.
 *
 * Promised, and compared with a brute-force computation over `Intl` for ten years in twenty zones
 * (`test/schedule/NextFire.oracle.test.ts`): `next` gives each instant of the spec once, in order, and no other.
 */
import { Either } from "effect"
import { InvalidRequest } from "../Errors.js"
import { daysOf, secondOf, timesOf } from "./CalendarRule.js"
import * as ClockChanges from "./ClockChanges.js"
import * as CronExpression from "./CronExpression.js"
import { dayMs, type DaySet, yearMax } from "./DaySet.js"
import type { Exclusion, ScheduleSpec, Source } from "./ScheduleSpec.js"
import type { WallTimes } from "./WallTimes.js"
import * as ZoneOffsets from "./ZoneOffsets.js"

export interface NextFire {
  readonly zone: ZoneOffsets.ZoneOffsets
  /** Ms after the end of a run, where that decides: no instant can be told ahead then. */
  readonly delayMs: number | undefined
  /**
   * The first fire after `after`, in ms; `undefined` when there is none: up to the year 2499, before the spec's end, or
   * within 10,000 stretches of exclusions one after the other.
   */
  readonly next: (after: number) => number | undefined
}

/** Stretches of exclusions passed over in one search: 27 years of days. */
const exclusionsPassedMax = 10_000
const instantMax = Date.UTC(yearMax + 1, 0, 1)

const refuse = (field: string, limit: string, actual: string) =>
  Either.left(new InvalidRequest({ field, limit, actual }))

/**
 * Makes a spec ready for searching.
 *
 * Refused: a zone that is not one, a bad expression, options that contradict each other, and what can never fire.
 */
export const compile = (spec: ScheduleSpec): Either.Either<NextFire, InvalidRequest> =>
  Either.gen(function*() {
    const zoneName = spec.zone ?? "UTC"
    const zone = ZoneOffsets.find(zoneName)
    if (zone === undefined) return yield* refuse("zone", "the name of an IANA time zone", JSON.stringify(zoneName))
    if (spec.start !== undefined && spec.end !== undefined && spec.end <= spec.start) {
      return yield* refuse("end", "after start", `${isoOf(spec.end)}, not after ${isoOf(spec.start)}`)
    }
    yield* checkExclusions(spec)
    const delay = spec.sources.find((source) => source._tag === "delay")
    if (delay !== undefined && spec.sources.length > 1) {
      return yield* refuse("sources", "a delay alone, or others without it", `${spec.sources.length} sources`)
    }
    const searches: Array<Search> = []
    for (const source of spec.sources) searches.push(yield* searchOf(source, spec, zone))
    const pass = passOver(spec.exclude ?? [], zone)
    const start = spec.start ?? 0
    const end = Math.min(spec.end ?? instantMax, instantMax)
    const next = (after: number): number | undefined => {
      let from = Math.max(after, start - 1)
      for (let passed = 0; passed < exclusionsPassedMax; passed++) {
        const found = earliest(searches, from)
        if (found === undefined || found >= end) return undefined
        const until = pass(found)
        if (until === undefined) return found
        from = until - 1
      }
      return undefined
    }
    if (next(-1) === undefined) {
      return yield* refuse("sources", "able to fire", "nothing from start to end that no exclusion covers")
    }
    return { zone, delayMs: delay?.delayMs, next }
  })

/** Fires after `after`, the first ones, at most `count`. */
export const preview = (fires: NextFire, after: number, count: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let at = fires.next(after); at !== undefined && found.length < count; at = fires.next(at)) found.push(at)
  return found
}

type Search = (after: number) => number | undefined

const earliest = (searches: ReadonlyArray<Search>, after: number): number | undefined => {
  let best: number | undefined
  for (const search of searches) {
    const found = search(after)
    if (found !== undefined && (best === undefined || found < best)) best = found
  }
  return best
}

const searchOf = (
  source: Source,
  spec: ScheduleSpec,
  zone: ZoneOffsets.ZoneOffsets
): Either.Either<Search, InvalidRequest> => {
  const gap = spec.gap ?? "shiftForward"
  switch (source._tag) {
    case "cron":
      return Either.map(CronExpression.parse(source.expression), (cron) => {
        const changes = { gap, overlap: spec.overlap ?? (cron.isEveryHour ? "both" : "first") }
        return (after) => ClockChanges.nextInstant(cron, zone, changes, after)
      })
    case "calendar": {
      const days = daysOf(source)
      if (days.next(0) === undefined) return refuse("calendar", "a rule that some day matches", JSON.stringify(source))
      const times: WallTimes = { days, nextTime: nextTimeOf(timesOf(source.times)) }
      const changes = { gap, overlap: spec.overlap ?? "first" }
      return Either.right((after) => ClockChanges.nextInstant(times, zone, changes, after))
    }
    case "rate": {
      const { anchor = 0, everyMs } = source
      const phase = anchor % everyMs
      return Either.right((after) => Math.floor((after - phase) / everyMs + 1) * everyMs + phase)
    }
    case "delay":
      return Either.right((after) => after + source.delayMs)
    case "instants": {
      const sorted = [...source.at].sort((a, b) => a - b)
      return Either.right((after) => sorted.find((at) => at > after))
    }
  }
}

const nextTimeOf = (times: ReadonlyArray<number>) => (from: number): number => times.find((time) => time >= from) ?? -1

const checkExclusions = (spec: ScheduleSpec): Either.Either<void, InvalidRequest> => {
  for (const exclusion of spec.exclude ?? []) {
    if (exclusion._tag === "range" && exclusion.until <= exclusion.from) {
      return refuse("exclude.until", "after from", `${isoOf(exclusion.until)}, not after ${isoOf(exclusion.from)}`)
    }
    if (exclusion._tag === "days" && (exclusion.from === undefined) !== (exclusion.until === undefined)) {
      return refuse("exclude.days", "with both from and until, or neither", JSON.stringify(exclusion))
    }
    if (exclusion._tag === "days" && exclusion.from !== undefined && exclusion.from === exclusion.until) {
      return refuse("exclude.until", "another time than from", exclusion.from)
    }
  }
  return Either.right(undefined)
}

/** For an instant that an exclusion covers: the instant at which that exclusion ends. */
type Pass = (at: number) => number | undefined

const passOver = (exclusions: ReadonlyArray<Exclusion>, zone: ZoneOffsets.ZoneOffsets): Pass => {
  const passes = exclusions.map((exclusion) => passOf(exclusion, zone))
  return (at) => {
    for (const pass of passes) {
      const until = pass(at)
      if (until !== undefined) return until
    }
    return undefined
  }
}

const passOf = (exclusion: Exclusion, zone: ZoneOffsets.ZoneOffsets): Pass => {
  switch (exclusion._tag) {
    case "range":
      return (at) => at >= exclusion.from && at < exclusion.until ? exclusion.until : undefined
    case "instants": {
      const instants = new Set<number>(exclusion.at)
      return (at) => instants.has(at) ? at + 1 : undefined
    }
    case "dates": {
      const days = new Set(exclusion.dates.map((date) => Date.parse(`${date}T00:00:00Z`) / dayMs))
      return wallStretch(zone, { has: (day) => days.has(day) }, 0, dayMs)
    }
    case "days": {
      const from = exclusion.from === undefined ? 0 : secondOf(exclusion.from) * 1_000
      const until = exclusion.until === undefined ? dayMs : secondOf(exclusion.until) * 1_000
      return wallStretch(zone, daysOf(exclusion), from, until > from ? until : until + dayMs)
    }
  }
}

/** From `fromMs` of each of the days until before `untilMs`, counted from the begin of that day, on the wall. */
const wallStretch = (
  zone: ZoneOffsets.ZoneOffsets,
  days: Pick<DaySet, "has">,
  fromMs: number,
  untilMs: number
): Pass => {
  return (at) => {
    const offset = zone.offsetAt(at)
    const wall = at + offset
    const today = Math.floor(wall / dayMs)
    for (const day of [today, today - 1]) {
      const begin = day * dayMs
      if (wall < begin + fromMs || wall >= begin + untilMs || !days.has(day)) continue
      // Where clocks are set on the way the wall shows its end earlier or later than this: go no further than the change.
      const end = begin + untilMs - offset
      return zone.nextTransition(at, end)?.at ?? end
    }
    return undefined
  }
}

const isoOf = (ms: number): string => new Date(ms).toISOString()
