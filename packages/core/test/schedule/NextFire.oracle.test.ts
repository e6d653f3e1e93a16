/**
 * 216 expressions in 22 zones over ten years against a computation by brute force.
 *
 * Every fire of each pair is compared where there are few of them; of the others, those of the days around each change of
 * the clocks, and of days drawn by a seed, which is printed. `ORRERY_ORACLE=whole` compares every fire of those that fire
 * at most 100 times a day (a quarter of an hour); `ORRERY_ORACLE_SEED` draws the same days again.
 */
import { assert, describe, it } from "@effect/vitest"
import * as NextFire from "@orrery/core/schedule/NextFire"
import { Either } from "effect"
import { fieldsOf, firesIn, type Range, type ZoneTable, zoneTable } from "./bruteForce.js"

const dayMs = 86_400_000
/** With the day that Apia left out (2011-12-30), Lord Howe's half hours, Morocco's four changes a year, leap days. */
const decade: Range = { from: Date.UTC(2010, 0, 1), until: Date.UTC(2020, 0, 1) }

const zones = [
  ...["UTC", "America/New_York", "America/St_Johns", "America/Sao_Paulo", "America/Santiago", "America/Havana"],
  ...["America/Caracas", "Atlantic/Azores", "Europe/London", "Europe/Berlin", "Europe/Moscow", "Africa/Casablanca"],
  ...["Africa/Cairo", "Asia/Gaza", "Asia/Tehran", "Asia/Kathmandu", "Asia/Pyongyang", "Australia/Lord_Howe"],
  ...["Pacific/Chatham", "Pacific/Apia", "Antarctica/Troll", "Antarctica/Casey"]
]

const times = [
  ...["30 2", "0 0", "59 23", "30 1", "15 3", "0 2,14"],
  ...["*/30 1-3", "0 *", "5/20 */4", "* *", "10 30 0-2", "*/20 59 1,2"]
]
const dates = [
  ...["* * *", "1 * *", "31 * *", "29 2 *", "l * *", "15w * *", "lw * *", "* * 1-5", "* * sun"],
  ...["* * 5l", "* * 2#1", "13 * 5", "13 * +5", "*/2 * *", "30 4,6,9,11 *", "* mar,oct-nov 7", "1w 1 *", "28-31 2-3 *"]
]
const expressions = times.flatMap((time) => dates.map((date) => `${time} ${date}`))

const policies = (["skip", "shiftForward"] as const).flatMap((gap) =>
  (["first", "last", "both"] as const).map((overlap) => ({ gap, overlap }))
)

const whole = process.env["ORRERY_ORACLE"] === "whole"
const seed = Number(process.env["ORRERY_ORACLE_SEED"] ?? Date.now() % 1_000_000)
/** Fires of one pair in the ten years up to which all are compared. */
const allMax = whole ? 366_000 : 700
const daysDrawn = whole ? 500 : 6

/** mulberry32 */
const random = (start: number) => {
  let state = start
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The ranges of a pair that are compared. */
const rangesOf = (table: ZoneTable, firesMax: number, draw: () => number): ReadonlyArray<Range> => {
  if (firesMax <= allMax) return [decade]
  const days = Array.from({ length: daysDrawn }, () => decade.from + Math.floor(draw() * 3_651) * dayMs)
  const around = [
    ...table.changes.map((change) => ({ from: change - 0.2 * dayMs, until: change + 0.2 * dayMs })),
    ...days.map((day) => ({ from: day, until: day + dayMs / 4 }))
  ]
  return around.filter(({ from, until }) => from >= decade.from && until < decade.until)
}

interface Pair {
  readonly expression: string
  readonly zone: string
  readonly policy: (typeof policies)[number]
}

/** Walks from fire to fire as a schedule does; answers how many were compared. */
const compare = (pair: Pair, fires: NextFire.NextFire, expected: ReadonlyArray<number>, { from, until }: Range) => {
  let at = fires.next(from - 1)
  for (const fire of expected) {
    if (at !== fire) wrong(pair, at, fire)
    at = fires.next(fire)
  }
  if (at !== undefined && at < until) wrong(pair, at, undefined)
  return expected.length
}

const iso = (ms: number | undefined) => ms === undefined ? "none" : new Date(ms).toISOString()
const wrong = ({ expression, policy, zone }: Pair, actual: number | undefined, expected: number | undefined) =>
  assert.fail(
    `${expression} in ${zone} ${JSON.stringify(policy)}: ${iso(actual)} instead of ${iso(expected)}, seed ${seed}`
  )

const firstDay = decade.from / dayMs - 10
const table = (matches: (day: number) => boolean) => {
  const days = Uint8Array.from({ length: 3_680 }, (_, index) => matches(firstDay + index) ? 1 : 0)
  return { count: days.reduce((sum, each) => sum + each, 0), has: (day: number) => days[day - firstDay] === 1 }
}

describe("NextFire", () => {
  it(
    `fires as brute force says, whatever the zone (seed ${seed})`,
    { timeout: whole ? 3_600_000 : 120_000 },
    async () => {
      const draw = random(seed)
      const tables = zones.map((zone) =>
        zoneTable(zone, { from: decade.from - 10 * dayMs, until: decade.until + 10 * dayMs })
      )
      const dayTables = new Map(dates.map((date) => [date, table(fieldsOf(`0 0 ${date}`).dayMatches)]))
      let compared = 0
      let pairs = 0
      for (const [index, expression] of expressions.entries()) {
        const fields = fieldsOf(expression)
        const days = dayTables.get(expression.split(" ").slice(-3).join(" "))!
        for (const [zoneIndex, zone] of zones.entries()) {
          const policy = policies[(index + zoneIndex) % policies.length]!
          const fires = Either.getOrThrow(
            NextFire.compile({ sources: [{ _tag: "cron", expression }], zone, ...policy })
          )
          for (const range of rangesOf(tables[zoneIndex]!, days.count * fields.times.length, draw)) {
            const expected = firesIn(fields, days.has, tables[zoneIndex]!, policy, range)
            compared += compare({ expression, zone, policy }, fires, expected, range)
          }
          pairs++
        }
        // The runner of the tests wants to be heard now and then.
        await new Promise(setImmediate)
      }

      assert.isAtLeast(expressions.length, 200)
      assert.isAtLeast(pairs, 200 * 20)
      // What the days drawn add or take does not come near to it.
      assert.isAbove(compared, 1_000_000)
    }
  )
})
