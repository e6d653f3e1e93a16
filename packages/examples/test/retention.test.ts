import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("retention.ts says how long runs are kept, and shows what is left when days have passed", async () => {
  const output = await outputOf("retention")

  assert.deepStrictEqual(output.split("\n"), [
    `revision 3: {"succeeded":"1 day","failed":"forever","expired":"7 days"}`,
    "retention.failed must be one of 1 day, 7 days, 30 days, 90 days, 365 days, forever, got 2 weeks",
    "after 0 more days: succeeded, failed",
    "after 2 more days: RunNotFound, failed",
    "after 100 more days: RunNotFound, RunNotFound"
  ])
}, 60_000)
