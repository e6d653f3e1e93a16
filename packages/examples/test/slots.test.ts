import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("slots.ts never uses more slots than there are, and lets what takes several have its turn", async () => {
  const output = await outputOf("slots")

  // The worker says what it is too small for.
  const lines = output.split("\n").filter((line) => !/WARN|module:/.test(line))
  assert.deepStrictEqual(lines, [
    "slots in use: at most 4 of 4",
    "films began before the last thumbnails: true",
    "atlas: {\"_tag\":\"NoWorker\",\"task\":\"atlas\",\"slots\":9,\"most\":4}"
  ])
  assert.include(output, "task atlas takes 9 slots and this worker has 4")
}, 60_000)
