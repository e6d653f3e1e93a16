import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("retries.ts ends each run as its task says, and makes the dead letter anew", async () => {
  const file = fileURLToPath(new URL("../src/retries.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
    `"busy": succeeded in 3 attempts, "charged"`,
    `"stolen": failed in 1 attempts, Rejected`,
    `"pending": succeeded in 1 attempts, "charged after 3 looks"`,
    `"down": failed in 2 attempts, Down`,
    "null: expired in 0 attempts, QueueTtlExceeded",
    "redriven 1 of 1, succeeded 1"
  ])
}, 60_000)
