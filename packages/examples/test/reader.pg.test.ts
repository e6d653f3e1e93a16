import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("reader.ts enqueues and awaits without a node", async () => {
  const output = await outputOf("reader")

  const lines = output.split("\n").slice(-2)
  assert.strictEqual(lines[0], "9 16 25")
  assert.match(lines[1]!, /^ClusterUnavailable: .*calls no node/)
}, 60_000)
