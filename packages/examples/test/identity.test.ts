import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("identity.ts makes one run of each key, with the last payload where it says so, and waits for room", async () => {
  const output = await outputOf("identity")

  assert.deepStrictEqual(output.split("\n"), [
    "charge: 10 requests, 1 run, 1 id",
    "build: 10 requests, 1 run, 1 id",
    "sync: 10 requests, 1 run, 1 id",
    "done: charged 0, synced -1 9, built 9",
    "refused: QueueFull",
    "reported: 50"
  ])
}, 60_000)
