/** Days by the calendar, for what cron cannot say: all conditions of a rule hold together. */
import { Schema } from "effect"
import * as DaySet from "./DaySet.js"

const listMax = 100
const yearsMax = 500

/** Without what is left out, each day. */
export const dayFields = {
  years: Schema.optionalWith(
    Schema.NonEmptyArray(Schema.Int.pipe(Schema.between(DaySet.yearMin, DaySet.yearMax))).pipe(
      Schema.maxItems(yearsMax)
    ),
    { exact: true }
  ),
  /** 1 to 12. */
  months: Schema.optionalWith(
    Schema.NonEmptyArray(Schema.Int.pipe(Schema.between(1, 12))).pipe(Schema.maxItems(listMax)),
    { exact: true }
  ),
  /** 1 to 31, or -1 (last of the month) to -31. */
  days: Schema.optionalWith(
    Schema.NonEmptyArray(Schema.Int.pipe(Schema.between(-31, 31), Schema.filter((day) => day !== 0))).pipe(
      Schema.maxItems(listMax)
    ),
    { exact: true }
  ),
  /** 0 (Sunday) to 6. */
  weekdays: Schema.optionalWith(
    Schema.NonEmptyArray(Schema.Int.pipe(Schema.between(0, 6))).pipe(Schema.maxItems(listMax)),
    { exact: true }
  ),
  /** Which of the month's days of that weekday: 1 (first) to 5, or -1 (last) to -5. */
  nth: Schema.optionalWith(
    Schema.NonEmptyArray(Schema.Int.pipe(Schema.between(-5, 5), Schema.filter((nth) => nth !== 0))).pipe(
      Schema.maxItems(listMax)
    ),
    { exact: true }
  )
}

export const DayRule = Schema.Struct(dayFields)
export type DayRule = typeof DayRule.Type

/** A time on the wall, `HH:MM` or `HH:MM:SS`, 00:00 to 23:59:59. */
export const TimeOfDay = Schema.String.pipe(
  Schema.pattern(/^(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?$/, { message: () => "HH:MM or HH:MM:SS" })
)

/** Second of the day. */
export const secondOf = (time: string): number => {
  const [hours, minutes, seconds] = time.split(":")
  return Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds ?? 0)
}

const includes = (list: ReadonlyArray<number> | undefined, ...values: ReadonlyArray<number>): boolean =>
  list === undefined || values.some((value) => list.includes(value))

export const daysOf = (rule: DayRule): DaySet.DaySet =>
  DaySet.make((day) => {
    const date = new Date(day * DaySet.dayMs)
    const dayOfMonth = date.getUTCDate()
    const monthDays = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate()
    const fromEnd = monthDays - dayOfMonth
    return includes(rule.months, date.getUTCMonth() + 1)
      && includes(rule.days, dayOfMonth, -1 - fromEnd)
      && includes(rule.weekdays, date.getUTCDay())
      && includes(rule.nth, Math.ceil(dayOfMonth / 7), -Math.ceil((fromEnd + 1) / 7))
  }, rule.years === undefined ? undefined : new Set(rule.years))

/** Sorted, each once. */
export const timesOf = (times: ReadonlyArray<string>): ReadonlyArray<number> =>
  [...new Set(times.map(secondOf))].sort((a, b) => a - b)
