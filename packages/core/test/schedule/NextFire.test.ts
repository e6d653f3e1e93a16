import { assert, describe, it } from "@effect/vitest"
import type { InvalidRequest } from "@orrery/core/Errors"
import * as NextFire from "@orrery/core/schedule/NextFire"
import * as ScheduleSpec from "@orrery/core/schedule/ScheduleSpec"
import { Either, FastCheck as fc } from "effect"

type Parts = Omit<ScheduleSpec.ScheduleSpec, "sources">

const cron = (expression: string, parts: Parts = {}): ScheduleSpec.ScheduleSpec => ({
  sources: [{ _tag: "cron", expression }],
  ...parts
})

const fires = (spec: ScheduleSpec.ScheduleSpec, from: string, count: number) =>
  NextFire.preview(Either.getOrThrow(NextFire.compile(spec)), Date.parse(from) - 1, count)
    .map((ms) => new Date(ms).toISOString().slice(0, 16))

const refusal = (spec: unknown): InvalidRequest =>
  Either.match(Either.flatMap(ScheduleSpec.decode(spec), NextFire.compile), {
    onLeft: (problem) => problem,
    onRight: () => assert.fail("accepted")
  })

const zone = "America/New_York"

describe("NextFire", () => {
  it("leaves out or moves what a gap swallows, as asked", () => {
    assert.deepStrictEqual(fires(cron("30 2 * * *", { zone, gap: "skip" }), "2026-03-07T12:00Z", 1), [
      "2026-03-09T06:30"
    ])
    assert.deepStrictEqual(fires(cron("30 2 * * *", { zone, gap: "shiftForward" }), "2026-03-07T12:00Z", 1), [
      "2026-03-08T07:30"
    ])
  })

  it("fires at the first, the last or both of what happens twice, as asked", () => {
    const from = "2026-11-01T04:00Z"
    assert.deepStrictEqual(fires(cron("30 1 * * *", { zone, overlap: "first" }), from, 2), [
      "2026-11-01T05:30",
      "2026-11-02T06:30"
    ])
    assert.deepStrictEqual(fires(cron("30 1 * * *", { zone, overlap: "last" }), from, 1), ["2026-11-01T06:30"])
    assert.deepStrictEqual(fires(cron("30 1 * * *", { zone, overlap: "both" }), from, 2), [
      "2026-11-01T05:30",
      "2026-11-01T06:30"
    ])
  })

  it("keeps an hourly schedule hourly, and a daily one daily, when nothing is asked", () => {
    assert.deepStrictEqual(fires(cron("0 * * * *", { zone }), "2026-11-01T04:30Z", 3), [
      "2026-11-01T05:00",
      "2026-11-01T06:00",
      "2026-11-01T07:00"
    ])
    assert.deepStrictEqual(fires(cron("30 1 * * *", { zone }), "2026-11-01T04:30Z", 2), [
      "2026-11-01T05:30",
      "2026-11-02T06:30"
    ])
    assert.deepStrictEqual(fires(cron("30 2 * * *", { zone }), "2026-03-08T05:00Z", 1), ["2026-03-08T07:30"])
  })

  it("counts a moved fire that meets another once", () => {
    assert.deepStrictEqual(fires(cron("*/30 * * * *", { zone }), "2026-03-08T06:30Z", 4), [
      "2026-03-08T06:30",
      "2026-03-08T07:00",
      "2026-03-08T07:30",
      "2026-03-08T08:00"
    ])
  })

  it("unites cron, intervals, instants and calendar rules, each instant once", () => {
    const spec: ScheduleSpec.ScheduleSpec = {
      sources: [
        { _tag: "cron", expression: "@daily" },
        { _tag: "rate", everyMs: 12 * 3_600_000 },
        { _tag: "instants", at: [Date.parse("2026-01-31T07:00Z"), Date.parse("2026-01-31T12:00Z")] },
        { _tag: "calendar", days: [-1], times: ["18:00", "09:00"] }
      ]
    }
    assert.deepStrictEqual(fires(spec, "2026-01-31T00:00Z", 7), [
      "2026-01-31T00:00",
      "2026-01-31T07:00",
      "2026-01-31T09:00",
      "2026-01-31T12:00",
      "2026-01-31T18:00",
      "2026-02-01T00:00",
      "2026-02-01T12:00"
    ])
  })

  it("knows the second Tuesday, the last Friday and the years of a calendar rule", () => {
    const rule = (parts: object): ScheduleSpec.ScheduleSpec => ({
      sources: [{ _tag: "calendar", times: ["09:00"], ...parts }]
    })
    assert.deepStrictEqual(fires(rule({ weekdays: [2], nth: [2] }), "2026-01-01T00:00Z", 2), [
      "2026-01-13T09:00",
      "2026-02-10T09:00"
    ])
    assert.deepStrictEqual(fires(rule({ weekdays: [5], nth: [-1], months: [2] }), "2026-01-01T00:00Z", 2), [
      "2026-02-27T09:00",
      "2027-02-26T09:00"
    ])
    assert.deepStrictEqual(fires(rule({ days: [29], months: [2], years: [2028, 2032] }), "2026-01-01T00:00Z", 9), [
      "2028-02-29T09:00",
      "2032-02-29T09:00"
    ])
  })

  it("leaves out holidays, hours of days, ranges and instants", () => {
    const exclude: ScheduleSpec.ScheduleSpec["exclude"] = [
      { _tag: "dates", dates: ["2026-12-25"] },
      { _tag: "days", weekdays: [6, 0] },
      { _tag: "days", from: "22:00", until: "06:00" },
      { _tag: "range", from: Date.parse("2026-12-28T12:00Z"), until: Date.parse("2026-12-28T20:00Z") },
      { _tag: "instants", at: [Date.parse("2026-12-24T09:00Z")] }
    ]
    // In Berlin, one hour ahead.
    assert.deepStrictEqual(
      fires(cron("0 */5 * * *", { zone: "Europe/Berlin", exclude }), "2026-12-24T00:00Z", 6),
      [
        "2026-12-24T14:00",
        "2026-12-24T19:00",
        "2026-12-28T09:00",
        "2026-12-29T09:00",
        "2026-12-29T14:00",
        "2026-12-29T19:00"
      ]
    )
  })

  it("fires from start on and before end", () => {
    const spec = cron("@hourly", { start: Date.parse("2026-01-01T05:00Z"), end: Date.parse("2026-01-01T07:00Z") })
    assert.deepStrictEqual(fires(spec, "1990-01-01T00:00Z", 9), ["2026-01-01T05:00", "2026-01-01T06:00"])
  })

  it("refuses what cannot be, with field, limit and what was given", () => {
    const refused: ReadonlyArray<readonly [object, string]> = [
      [cron("0 0 31 2 *"), "cron"],
      [cron("0 0 30 2 *"), "cron"],
      [cron("61 * * * *"), "cron"],
      [cron("* * * *"), "cron"],
      [cron("0 0 0 1 1 * 2030"), "cron"],
      [cron("@reboot"), "cron"],
      [cron("2030-01-01T00:00:00"), "cron"],
      [cron("/5 * * * *"), "cron"],
      [cron("* * * * ".repeat(40)), "cron"],
      [cron("@daily", { zone: "Mars/Olympus" }), "zone"],
      [cron("@daily", { zone: "+02:00" }), "zone"],
      [cron("@daily", { start: 2_000, end: 2_000 }), "end"],
      [cron("@yearly", { start: 86_400_000, end: 2 * 86_400_000 }), "sources"],
      [cron("@daily", { exclude: [{ _tag: "days" }] }), "sources"],
      [cron("@daily", { exclude: [{ _tag: "days", from: "09:00" }] }), "exclude.days"],
      [cron("@daily", { exclude: [{ _tag: "range", from: 5, until: 4 }] }), "exclude.until"],
      [cron("@daily", { exclude: [{ _tag: "dates", dates: ["2026-02-30"] }] }), "spec.exclude.0.dates.0"],
      [cron("@daily", { maxFires: 0 }), "spec.maxFires"],
      [cron("@daily", { jitterMs: 1e9 }), "spec.jitterMs"],
      [{ sources: [{ _tag: "rate", everyMs: 1 }] }, "spec.sources.0.everyMs"],
      [{ sources: [] }, "spec.sources"],
      [{ ...cron("@daily"), timezone: "UTC" }, "spec.timezone"],
      [{ sources: [{ _tag: "delay", delayMs: 5_000 }, { _tag: "rate", everyMs: 5_000 }] }, "sources"],
      [{ sources: [{ _tag: "calendar", months: [2], days: [30], times: ["00:00"] }] }, "calendar"]
    ]
    for (const [spec, field] of refused) {
      const problem = refusal(spec)
      assert.strictEqual(problem.field.startsWith(field), true, `${problem.field} for ${JSON.stringify(spec)}`)
      assert.isNotEmpty(problem.limit)
      assert.isBelow(problem.actual.length, 600)
    }
  })

  it("answers any text with a schedule or a refusal, at once", () => {
    const field = fc.stringMatching(/^[0-9*/,\-#?+LWa-z ]{0,12}$/)
    const text = fc.oneof(fc.string(), fc.array(field, { minLength: 4, maxLength: 7 }).map((parts) => parts.join(" ")))
    fc.assert(
      fc.property(text, (expression) => {
        const compiled = Either.flatMap(ScheduleSpec.decode(cron(expression, { zone })), NextFire.compile)
        if (Either.isRight(compiled)) assert.isDefined(compiled.right.next(Date.UTC(2026, 0, 1)))
      }),
      { numRuns: 300 }
    )
  })

  it("gives what comes after any instant, whichever way it got there", () => {
    const compiled = Either.getOrThrow(NextFire.compile(cron("*/7 1-4 * * *", { zone, overlap: "both" })))
    const all = NextFire.preview(compiled, Date.UTC(2026, 9, 30), 300)
    fc.assert(fc.property(fc.integer({ min: Date.UTC(2026, 9, 30), max: all.at(-1)! - 1 }), (at) => {
      assert.strictEqual(compiled.next(at), all.find((fire) => fire > at))
    }))
  })
})
