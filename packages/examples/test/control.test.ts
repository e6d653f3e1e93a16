import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("control.ts pauses, limits and resumes a queue while it works", async () => {
  const file = fileURLToPath(new URL("../src/control.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
    "paused: 0 sent",
    "revision 5: 20 sent, 1 customer, 2 at once",
    "all: 40 sent, 4 at once"
  ])
}, 60_000)
