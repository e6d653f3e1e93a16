import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("control.ts pauses, limits and resumes a queue while it works", async () => {
  const output = await outputOf("control")

  assert.deepStrictEqual(output.split("\n"), [
    "paused: 0 sent",
    "revision 5: 20 sent, 1 customer, 2 at once",
    "all: 40 sent, 4 at once"
  ])
}, 60_000)
