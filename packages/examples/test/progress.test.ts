import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("progress.ts goes on from its checkpoint, and its watch tells the end", async () => {
  const output = await outputOf("progress")

  const lines = output.split("\n")
  assert.includeMembers(lines, ["log: attempt 1 begins with page 1", "log: attempt 2 begins with page 4"])
  assert.strictEqual(lines.at(-1), `end: succeeded {"pages":6,"readByLastAttempt":3}`)
}, 60_000)
