import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("spanning-limits.ts keeps its limits over its queues, and says what a run waits for", async () => {
  const output = await outputOf("spanning-limits")

  const [waits, calls, renders] = output.split("\n")
  assert.strictEqual(waits, "a refund waits: RateLimited partner-api")
  const [, count, lines] = /^(\d+) calls, at most (\d+) lines/.exec(calls!) ?? []
  assert.strictEqual(count, "20")
  assert.isAtMost(Number(lines), 10)
  assert.strictEqual(renders, "at most 2 renders and previews at once")
}, 60_000)
