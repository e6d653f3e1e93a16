import { assert, it } from "@effect/vitest"
import { outputOf } from "./outputOf.js"

it("retries.ts ends each run as its task says, and makes the dead letter anew", async () => {
  assert.deepStrictEqual((await outputOf("retries")).split("\n"), [
    `"busy": succeeded in 3 attempts, "charged"`,
    `"stolen": failed in 1 attempts, Rejected`,
    `"pending": succeeded in 1 attempts, "charged after 3 looks"`,
    `"down": failed in 2 attempts, Down`,
    "null: expired in 0 attempts, QueueTtlExceeded",
    "redriven 1 of 1, succeeded 1"
  ])
}, 60_000)
