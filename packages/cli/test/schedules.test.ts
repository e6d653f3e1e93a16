import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { compiled } from "../../testing/src/compiled.js"
import { orrery } from "./orrery.js"

// Else the first calls of it do, at once, and within the time of one test.
beforeAll(() => compiled(fileURLToPath(new URL("../src/main.ts", import.meta.url))), 240_000)

const preview = (...args: ReadonlyArray<string>) => orrery({}, "schedules", "preview", ...args)
const zone = ["--zone", "America/New_York"]

describe("orrery schedules", () => {
  it.live("previews fires as one JSON array, or as a table, without a database", () =>
    Effect.gen(function*() {
      const cron = ["--cron", "30 2 * * *", ...zone, "--from", "2026-03-07T12:00:00Z", "--count", "2"]
      const [skipped, moved, every] = yield* Effect.all([
        preview(...cron, "--gap", "skip", "--overlap", "first", "--json"),
        preview(...cron),
        preview("--every", "36 hours", "--at", "2027-01-01", "--from", "2026-12-30", "--count", "2", "--json")
      ], { concurrency: 2 })

      assert.deepStrictEqual(skipped, {
        code: 0,
        out: "[\"2026-03-09T06:30:00.000Z\",\"2026-03-10T06:30:00.000Z\"]",
        err: ""
      })
      assert.include(moved.out, "2026-03-08T07:30:00.000Z  Sun 2026-03-08 03:30:00 -04:00")
      assert.deepStrictEqual(JSON.parse(every.out), ["2026-12-31T12:00:00.000Z", "2027-01-01T00:00:00.000Z"])
    }), 60_000)

  it.live("refuses with the field, the limit and what was given, and code 1", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.all([
        preview("--cron", "0 0 31 2 *", "--json"),
        preview("--cron", "@daily", "--zone", "Mars/Olympus"),
        preview("--cron", "@daily", "--from", "yesterday"),
        preview()
      ], { concurrency: 2 })

      assert.deepStrictEqual(refused.map(({ code, out }) => `${code}${out}`), ["1", "1", "1", "1"])
      const words = [/cron must be .* got "0 0 31 2 \*"/, /zone must be .* got "Mars\/Olympus"/, /instant/, /--cron/]
      for (const [index, word] of words.entries()) assert.match(refused[index]!.err, word)
    }), 60_000)

  it.live("simulates an outage", () =>
    Effect.gen(function*() {
      const times = ["--from", "2026-01-01", "--until", "2026-01-01T06:00Z"]
      const outage = ["--outage-from", "2026-01-01T01:30Z", "--outage-until", "2026-01-01T04:30Z"]
      const [told, wrong] = yield* Effect.all([
        orrery(
          {},
          "schedules",
          "simulate",
          "--cron",
          "@hourly",
          ...times,
          ...outage,
          "--misfire",
          "fireOnce",
          "--json"
        ),
        orrery({}, "schedules", "simulate", "--cron", "@hourly", ...times, ...outage.slice(0, 2))
      ], { concurrency: 2 })

      const lines = told.out.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>)
      assert.deepStrictEqual(lines.map((line) => `${String(line["outcome"])} ${String(line["count"])}`), [
        ...["ran 1", "ran 1", "missed 2", "ran 1", "ran 1"]
      ])
      assert.strictEqual(lines[3]!["startedAt"], "2026-01-01T04:30:00.000Z")
      assert.strictEqual(wrong.code, 1)
      assert.match(wrong.err, /outage must be/)
    }), 60_000)
})
