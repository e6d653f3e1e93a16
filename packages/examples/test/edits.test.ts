import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("edits.ts changes what waits, and deletes what is over", async () => {
  const file = fileURLToPath(new URL("../src/edits.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
    "ready: 3 x globe",
    "RunNotWaiting",
    "2 charged",
    "3 over, 3 deleted, 0 left"
  ])
}, 60_000)
