import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("edits.ts changes what waits, and deletes what is over", async () => {
  const output = await outputOf("edits")

  assert.deepStrictEqual(output.split("\n"), [
    "ready: 3 x globe",
    "RunNotWaiting",
    "2 charged",
    "3 over, 3 deleted, 0 left"
  ])
}, 60_000)
