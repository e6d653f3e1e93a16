import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("slots.ts never uses more slots than there are, and lets what takes several have its turn", async () => {
  const file = fileURLToPath(new URL("../src/slots.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  // The worker says what it is too small for.
  const lines = stdout.trimEnd().split("\n").filter((line) => !/WARN|module:/.test(line))
  assert.deepStrictEqual(lines, [
    "slots in use: at most 4 of 4",
    "films began before the last thumbnails: true",
    "atlas: {\"_tag\":\"NoWorker\",\"task\":\"atlas\",\"slots\":9,\"most\":4}"
  ])
  assert.include(stdout, "task atlas takes 9 slots and this worker has 4")
}, 60_000)
