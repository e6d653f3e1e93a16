import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("identity.ts makes one run of each key, with the last payload where it says so, and waits for room", async () => {
  const file = fileURLToPath(new URL("../src/identity.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
    "charge: 10 requests, 1 run, 1 id",
    "build: 10 requests, 1 run, 1 id",
    "sync: 10 requests, 1 run, 1 id",
    "done: charged 0, synced -1 9, built 9",
    "refused: QueueFull",
    "reported: 50"
  ])
}, 60_000)
