/**
 * Which days of the calendar a rule matches, remembered a year at a time.
 *
 * Days are numbered from 1970-01-01 = 0, without any zone: they are days on the wall. Whether a day matches depends on its
 * month, its number and its weekday only, so a year's answers depend on whether it is a leap year and on which weekday
 * it begins: 14 kinds of year at most, however many centuries are asked about.
 */

export const dayMs = 86_400_000
/** No fire is looked for outside these years. */
export const yearMin = 1970
export const yearMax = 2499

/** First day after `yearMax`. */
const dayEnd = Date.UTC(yearMax + 1, 0, 1) / dayMs

export interface DaySet {
  /** The first matching day at or after `day`; `undefined` when there is none up to `yearMax`. */
  readonly next: (day: number) => number | undefined
  readonly has: (day: number) => boolean
}

export const firstDayOf = (year: number): number => Date.UTC(year, 0, 1) / dayMs
export const yearOf = (day: number): number => new Date(day * dayMs).getUTCFullYear()
/** 0 is Sunday. 1970-01-01 was a Thursday. */
export const weekdayOf = (day: number): number => ((day % 7) + 11) % 7
export const isLeap = (year: number): boolean => (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0

/** 1 for each matching day of the year, in order. */
type Year = Uint8Array

/**
 * `matches` is asked once for each day of each kind of year, when that kind is first needed.
 *
 * `years`: only these match. Left out, all do.
 */
export const make = (matches: (day: number) => boolean, years?: ReadonlySet<number>): DaySet => {
  const kinds = new Map<number, Year>()
  const empty = new Uint8Array(0)

  const yearBits = (year: number): Year => {
    if (years !== undefined && !years.has(year)) return empty
    const first = firstDayOf(year)
    const kind = weekdayOf(first) + (isLeap(year) ? 7 : 0)
    const known = kinds.get(kind)
    if (known !== undefined) return known
    const bits = new Uint8Array(isLeap(year) ? 366 : 365)
    for (let index = 0; index < bits.length; index++) bits[index] = matches(first + index) ? 1 : 0
    const kept = bits.includes(1) ? bits : empty
    kinds.set(kind, kept)
    return kept
  }

  return {
    has: (day) => {
      if (day < 0 || day >= dayEnd) return false
      const year = yearOf(day)
      return yearBits(year)[day - firstDayOf(year)] === 1
    },
    next: (from) => {
      const start = Math.max(from, 0)
      if (start >= dayEnd) return undefined
      let year = yearOf(start)
      let index = start - firstDayOf(year)
      for (; year <= yearMax; year++, index = 0) {
        const found = yearBits(year).indexOf(1, index)
        if (found >= 0) return firstDayOf(year) + found
      }
      return undefined
    }
  }
}
