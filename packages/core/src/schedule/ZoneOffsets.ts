/**
 * Offsets of IANA zones, and when they change, out of `Intl`. A zone's year is looked through once, every six hours, and
 * then each change is narrowed down to the second; so two changes within six hours that cancel each other would be missed
 * (no zone has had them).
 */
import { dayMs, yearMax, yearMin } from "./DaySet.js"

/** The clocks of a zone are set at `at`: wall = instant + `before` until then, + `after` from then on. All in ms. */
export interface Transition {
  readonly at: number
  readonly before: number
  readonly after: number
}

/** From `from` until before `until` the offset is the same. Stretches end with the year too. */
export interface Stretch {
  readonly from: number
  readonly until: number
  readonly offset: number
}

export interface ZoneOffsets {
  readonly name: string
  /** The stretch an instant is in. Asked again and again for near instants it costs next to nothing. */
  readonly stretchAt: (ms: number) => Stretch
  /** What to add to an instant for the time on the wall, in ms. */
  readonly offsetAt: (ms: number) => number
  /** The first change in (after, until]. */
  readonly nextTransition: (after: number, until: number) => Transition | undefined
  /** The last change in (after, until]. */
  readonly lastTransition: (after: number, until: number) => Transition | undefined
}

/** Longest name of a zone. The longest of IANA has 32 characters. */
export const zoneLengthMax = 64

const probeMs = dayMs / 4
const known = new Map<string, ZoneOffsets>()
/** More than there are zones; names in other cases count apart. */
const knownMax = 2_000

/** `undefined`: not the name of a zone. Fixed offsets (`+02:00`) are no names; `Etc/GMT-2` is. */
export const find = (name: string): ZoneOffsets | undefined => {
  const zone = known.get(name)
  if (zone !== undefined) return zone
  if (name.length > zoneLengthMax || !/^[A-Za-z]/.test(name)) return undefined
  const format = formatOf(name)
  if (format === undefined) return undefined
  const made = make(name, format)
  if (known.size >= knownMax) known.clear()
  known.set(name, made)
  return made
}

const formatOf = (name: string): Intl.DateTimeFormat | undefined => {
  try {
    return new Intl.DateTimeFormat("en-US", {
      timeZone: name,
      hourCycle: "h23",
      ...{ year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" }
    })
  } catch {
    return undefined
  }
}

interface Year {
  readonly stretches: ReadonlyArray<Stretch>
  readonly transitions: ReadonlyArray<Transition>
}

const make = (name: string, format: Intl.DateTimeFormat): ZoneOffsets => {
  const years = new Map<number, Year>()
  let lastStretch: Stretch = { from: 0, until: 0, offset: 0 }

  const measure = (ms: number): number => {
    const wall: Record<string, number> = {}
    for (const { type, value } of format.formatToParts(ms)) wall[type] = Number(value)
    const { day, hour, minute, month, second, year } = wall
    return Date.UTC(year!, month! - 1, day, hour, minute, second) - Math.floor(ms / 1_000) * 1_000
  }

  const changeBetween = (from: number, to: number, before: number, after: number): Transition => {
    let low = from
    let high = to
    while (high - low > 1_000) {
      const middle = low + Math.floor((high - low) / 2_000) * 1_000
      if (measure(middle) === before) low = middle
      else high = middle
    }
    return { at: high, before, after }
  }

  const yearFrom = (year: number): Year => {
    const kept = years.get(year)
    if (kept !== undefined) return kept
    const end = Date.UTC(year + 1, 0, 1)
    const transitions: Array<Transition> = []
    const stretches: Array<Stretch> = []
    let from = Date.UTC(year, 0, 1)
    let offset = measure(from)
    for (let at = from; at < end;) {
      const to = Math.min(at + probeMs, end)
      const later = measure(to)
      if (later !== offset) {
        const change = changeBetween(at, to, offset, later)
        transitions.push(change)
        stretches.push({ from, until: change.at, offset })
        from = change.at
        offset = later
      }
      at = to
    }
    stretches.push({ from, until: end, offset })
    const made = { stretches, transitions }
    years.set(year, made)
    return made
  }

  const yearAt = (ms: number) => Math.min(Math.max(new Date(ms).getUTCFullYear(), yearMin), yearMax)

  const stretchAt = (ms: number): Stretch => {
    if (ms >= lastStretch.from && ms < lastStretch.until) return lastStretch
    const { stretches } = yearFrom(yearAt(ms))
    lastStretch = stretches.find(({ until }) => ms < until) ?? stretches.at(-1)!
    return lastStretch
  }

  return {
    name,
    stretchAt,
    offsetAt: (ms) => stretchAt(ms).offset,
    nextTransition: (after, until) => {
      for (let year = yearAt(after), last = yearAt(until); year <= last; year++) {
        for (const transition of yearFrom(year).transitions) {
          if (transition.at > after) return transition.at <= until ? transition : undefined
        }
      }
      return undefined
    },
    lastTransition: (after, until) => {
      let found: Transition | undefined
      for (let year = yearAt(after), last = yearAt(until); year <= last; year++) {
        for (const transition of yearFrom(year).transitions) {
          if (transition.at > after && transition.at <= until) found = transition
        }
      }
      return found
    }
  }
}
