/**
 * When an expression fires, computed another way: no library, nothing of `src`. Days are matched one by one by their parts;
 * offsets come from a table that `Intl` fills in words ("GMT+10:30"); and a wall time happens at each instant of which the
 * table says that it shows it.
 */
const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

export interface Range {
  readonly from: number
  readonly until: number
}

/** A zone's offsets over a range. */
export interface ZoneTable {
  readonly changes: ReadonlyArray<number>
  readonly offsetAt: (ms: number) => number
}

export const zoneTable = (zone: string, { from, until }: Range): ZoneTable => {
  const format = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset", year: "numeric" })
  const offset = (ms: number): number => {
    const [, sign, hours = "0", minutes = "0"] = /GMT(?:([+-])(\d\d):(\d\d))?$/.exec(format.format(ms))!
    return (sign === "-" ? -1 : 1) * (Number(hours) * hourMs + Number(minutes) * minuteMs)
  }
  const starts = [from]
  const offsets = [offset(from)]
  const stepMs = 8 * hourMs
  for (let at = from; at < until; at += stepMs) {
    const later = offset(at + stepMs)
    if (later === offsets.at(-1)) continue
    let change = at + minuteMs
    while (offset(change) !== later) change += minuteMs
    starts.push(change)
    offsets.push(later)
  }
  return {
    changes: starts.slice(1),
    offsetAt: (ms) => {
      let index = starts.length - 1
      while (index > 0 && starts[index]! > ms) index--
      return offsets[index]!
    }
  }
}

const monthNames = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
const weekdayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

const numberOf = (text: string, names: ReadonlyArray<string>, base: number): number => {
  const index = names.indexOf(text)
  return index >= 0 ? index + base : Number(text)
}

/** Numbers, ranges, steps; whatever else is in the list is given back as it is. */
const valuesOf = (field: string, min: number, max: number, names: ReadonlyArray<string> = []) => {
  const values = new Set<number>()
  const rest: Array<string> = []
  for (const part of field.split(",")) {
    const [, range = "", step] = /^([^/]*)(?:\/(\d+))?$/.exec(part)!
    const [low, high] = range.split("-").map((end) => numberOf(end, names, min))
    if (range === "*") { for (let value = min; value <= max; value += Number(step ?? 1)) values.add(value) }
    else if (Number.isNaN(low!)) rest.push(part)
    else {
      const last = high ?? (step === undefined ? low! : max)
      for (let value = low!; value <= last; value += Number(step ?? 1)) values.add(value)
    }
  }
  return { values, rest }
}

interface Fields {
  readonly dayMatches: (day: number) => boolean
  /** Seconds of the day, in order. */
  readonly times: ReadonlyArray<number>
}

/** Reads an expression in lower case. */
export const fieldsOf = (expression: string): Fields => {
  const parts = expression.split(" ")
  if (parts.length === 5) parts.unshift("0")
  const [seconds, minutes, hours] = [60, 60, 24].map((size, index) => valuesOf(parts[index]!, 0, size - 1).values)
  const times: Array<number> = []
  for (let second = 0; second < 86_400; second++) {
    if (
      hours!.has(Math.floor(second / 3_600)) && minutes!.has(Math.floor(second / 60) % 60) && seconds!.has(second % 60)
    ) times.push(second)
  }
  const both = parts[5]!.startsWith("+")
  const dates = valuesOf(parts[3]!, 1, 31)
  const months = valuesOf(parts[4]!, 1, 12, monthNames).values
  const weekdays = valuesOf(parts[5]!.replace("+", ""), 0, 7, weekdayNames)
  const isWorking = (year: number, month: number, date: number) =>
    date >= 1 && new Date(Date.UTC(year, month, date)).getUTCMonth() === month
    && ![0, 6].includes(new Date(Date.UTC(year, month, date)).getUTCDay())

  const dayMatches = (day: number): boolean => {
    const [year, month, date] = new Date(day * dayMs).toISOString().slice(0, 10).split("-").map(Number)
    const weekday = new Date(day * dayMs).getUTCDay()
    const length = new Date(Date.UTC(year!, month, 0)).getUTCDate()
    if (!months.has(month!)) return false
    const byDate = dates.values.has(date!) || dates.rest.some((part) => {
      if (part === "l") return date === length
      const working = Array.from({ length }, (_, index) => index + 1)
        .filter((each) => isWorking(year!, month! - 1, each))
      if (part === "lw") return date === working.at(-1)
      const wanted = Number(part.replace("w", ""))
      // The working day at the least distance. Ties cannot be: a Saturday is next to Friday, a Sunday to Monday.
      const nearest = [...working].sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted))[0]
      return wanted <= length && date === nearest
    })
    const byWeekday = weekdays.values.has(weekday) || (weekday === 0 && weekdays.values.has(7))
      || weekdays.rest.some((part) => {
        const [which, nth] = part.endsWith("l") ? [part.slice(0, -1), "l"] : part.split("#")
        if (numberOf(which!, weekdayNames, 0) !== weekday) return false
        return nth === "l" ? date! + 7 > length : Math.ceil(date! / 7) === Number(nth)
      })
    if (parts[3] === "*") return byWeekday
    if (parts[5] === "*") return byDate
    return both ? byDate && byWeekday : byDate || byWeekday
  }
  return { dayMatches, times }
}

/** Every instant in the range at which the fields fire, in order. The caller keeps the days: all zones have the same. */
export const firesIn = (
  { times }: Pick<Fields, "times">,
  dayMatches: (day: number) => boolean,
  zone: ZoneTable,
  policy: { readonly gap: "skip" | "shiftForward"; readonly overlap: "first" | "last" | "both" },
  { from, until }: Range
): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let day = Math.floor(from / dayMs) - 2; day <= Math.floor(until / dayMs) + 2; day++) {
    if (!dayMatches(day)) continue
    const begin = day * dayMs
    const near = zone.changes.filter((change) => Math.abs(change - begin) < 3 * dayMs)
    if (near.length === 0) {
      const offset = zone.offsetAt(begin)
      const midnight = begin - offset
      // What is outside of the range is left out below; most of it need not be made.
      if (midnight + dayMs <= from || midnight >= until) continue
      for (const second of times) found.push(midnight + second * 1_000)
      continue
    }
    const offsets = [...new Set(near.flatMap((change) => [zone.offsetAt(change - 1), zone.offsetAt(change)]))]
    for (const second of times) {
      const wall = begin + second * 1_000
      const instants = offsets.map((offset) => wall - offset).filter((at) => at + zone.offsetAt(at) === wall)
        .sort((a, b) => a - b)
      if (instants.length > 0) {
        if (policy.overlap !== "last") found.push(instants[0]!)
        if (policy.overlap !== "first") found.push(instants.at(-1)!)
      } else if (policy.gap === "shiftForward") {
        // In the gap at `change`: the wall showed less before, and shows more from then on.
        const change = near.find((each) => wall - zone.offsetAt(each - 1) >= each && wall - zone.offsetAt(each) < each)!
        found.push(wall - zone.offsetAt(change - 1))
      }
    }
  }
  return [...new Set(found)].filter((at) => at >= from && at < until).sort((a, b) => a - b)
}
