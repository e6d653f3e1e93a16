/**
 * Cron expressions of 5 or 6 fields. croner reads them and says which wall times match; nothing else of it is used. It
 * is asked once per distinct field, and its answers are kept as tables, since asked for each fire it takes tens of
 * microseconds, its schedules hold 80 KB each, and its handling of clock changes cannot be chosen (decision 0016).
 */
import { Cron } from "croner"
import { Either } from "effect"
import { InvalidRequest } from "../Errors.js"
import * as DaySet from "./DaySet.js"
import type { WallTimes } from "./WallTimes.js"

/** Longest expression, in characters. */
export const expressionLengthMax = 256

/** Names for the usual expressions. */
export const aliases: Readonly<Record<string, string>> = {
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
  "@monthly": "0 0 1 * *",
  "@weekly": "0 0 * * 0",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@hourly": "0 * * * *"
}

export interface CronExpression extends WallTimes {
  /** The hours are a wildcard: meant as "all the time", not as a time of day. */
  readonly isEveryHour: boolean
}

/** Distinct expressions, and fields of them, remembered; at the bound all are forgotten. */
const rememberedMax = 2_000
const expressions = new Map<string, Either.Either<CronExpression, InvalidRequest>>()
const daySets = new Map<string, DaySet.DaySet>()
/** By unit and expression of the field. */
const tables = new Map<string, Int8Array>()

const refuse = (limit: string, actual: string) => Either.left(new InvalidRequest({ field: "cron", limit, actual }))

/**
 * Reads an expression: seconds (may be left out: 0), minutes, hours, day of month, month, day of week.
 *
 * Each field: `*`, `?`, numbers, names (`jan`, `mon`), ranges, lists, steps (`*` or a range or a first value, `/n`). Day of
 * month: `L` (last), `15W` (nearest working day), `LW`. Day of week: 0 to 7 (both ends Sunday), `5L` (last Friday), `1#2`
 * (second Monday). With both days restricted (neither is `*`) either one suffices; `+` before the day of week asks for both.
 *
 * Refused: more than 256 characters, what is not such an expression, and what no day of any year matches.
 */
export const parse = (expression: string): Either.Either<CronExpression, InvalidRequest> => {
  if (expression.length > expressionLengthMax) {
    return refuse(`at most ${expressionLengthMax} characters`, `${expression.length} characters`)
  }
  const known = expressions.get(expression)
  if (known !== undefined) return known
  const parsed = read(expression)
  if (expressions.size >= rememberedMax) expressions.clear()
  expressions.set(expression, parsed)
  return parsed
}

const read = (expression: string): Either.Either<CronExpression, InvalidRequest> => {
  const quoted = JSON.stringify(expression)
  const given = expression.trim().toLowerCase()
  const text = given.startsWith("@") ? aliases[given] : expression.trim()
  if (text === undefined) return refuse(`one of ${Object.keys(aliases).join(" ")}, or 5 or 6 fields`, quoted)
  const fields = text.split(/\s+/)
  if (fields.length !== 5 && fields.length !== 6) {
    return refuse("5 fields, or 6 with seconds first", `${fields.length} in ${quoted}`)
  }
  // croner also reads dates, and a step after nothing.
  if (!/^[0-9A-Za-z*?/,#+\s-]+$/.test(text) || /(?:^|[\s,])\//.test(text)) {
    return refuse("a cron expression", quoted)
  }
  const [second, minute, hour, date, month, weekday] = fields.length === 6 ? fields : ["0", ...fields]
  const made = Either.try({
    try: () => ({
      seconds: tableOf(60, `${second} * * * * *`, 1_000),
      minutes: tableOf(60, `0 ${minute} * * * *`, 60_000),
      hours: tableOf(24, `0 0 ${hour} * * *`, 3_600_000),
      days: daysOf(`${date} ${month} ${weekday}`)
    }),
    catch: (cause) =>
      new InvalidRequest({ field: "cron", limit: "a cron expression", actual: `${quoted} (${reasonOf(cause)})` })
  })
  return Either.flatMap(made, ({ days, hours, minutes, seconds }) =>
    days === undefined
      ? refuse("an expression that some day matches", quoted)
      : Either.right({
        days,
        nextTime: nextTimeOf(hours, minutes, seconds),
        isEveryHour: /^[*?]/.test(hour!)
      }))
}

const reasonOf = (cause: unknown): string => String(cause instanceof Error ? cause.message : cause).slice(0, 200)

const cronOf = (expression: string) => new Cron(expression, { utcOffset: 0, mode: "6-part", sloppyRanges: true })

/** `next[value]` is the smallest matching value at or after it, -1 when there is none. */
const tableOf = (size: number, expression: string, unitMs: number): Int8Array => {
  const key = `${unitMs} ${expression}`
  const known = tables.get(key)
  if (known !== undefined) return known
  const cron = cronOf(expression)
  const next = new Int8Array(size + 1).fill(-1)
  for (let value = size - 1; value >= 0; value--) {
    next[value] = cron.match(new Date(value * unitMs)) ? value : next[value + 1]!
  }
  if (tables.size >= rememberedMax) tables.clear()
  tables.set(key, next)
  return next
}

/** `undefined`: no day matches. */
const daysOf = (fields: string): DaySet.DaySet | undefined => {
  const known = daySets.get(fields)
  if (known !== undefined) return known
  const cron = cronOf(`0 0 0 ${fields}`)
  // Looks through four centuries at most, after which the calendar repeats itself.
  if (cron.nextRun(new Date(0)) === null) return undefined
  const days = DaySet.make((day) => cron.match(new Date(day * DaySet.dayMs)))
  if (daySets.size >= rememberedMax) daySets.clear()
  daySets.set(fields, days)
  return days
}

const nextTimeOf = (hours: Int8Array, minutes: Int8Array, seconds: Int8Array) => {
  const firstSecond = seconds[0]!
  const firstOfHour = minutes[0]! * 60 + firstSecond
  return (from: number): number => {
    const hour = Math.floor(from / 3_600)
    if (hours[hour] === hour) {
      const minute = Math.floor(from / 60) % 60
      if (minutes[minute] === minute) {
        const second = seconds[from % 60]!
        if (second >= 0) return from - (from % 60) + second
      }
      const later = minutes[minute + 1]!
      if (later >= 0) return hour * 3_600 + later * 60 + firstSecond
    }
    const later = hours[hour + 1]!
    return later < 0 ? -1 : later * 3_600 + firstOfHour
  }
}
