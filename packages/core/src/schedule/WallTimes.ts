/** Times on the wall clock, of no zone yet: matching days, and times within each of them. */
import { dayMs, type DaySet } from "./DaySet.js"

export interface WallTimes {
  readonly days: DaySet
  /** The first matching second of the day at or after `second`; -1 when there is none in this day. Never empty for 0. */
  readonly nextTime: (second: number) => number
}

/**
 * The first matching wall time at or after `wallMs`, in ms as if the wall showed UTC; `undefined` when there is none up to
 * the year 2499.
 */
export const next = (times: WallTimes, wallMs: number): number | undefined => {
  const second = Math.ceil(wallMs / 1_000)
  const today = Math.floor(second / 86_400)
  const day = times.days.next(today)
  if (day === undefined) return undefined
  if (day > today) return day * dayMs + times.nextTime(0) * 1_000
  const later = times.nextTime(second - today * 86_400)
  if (later >= 0) return day * dayMs + later * 1_000
  const following = times.days.next(day + 1)
  return following === undefined ? undefined : following * dayMs + times.nextTime(0) * 1_000
}
