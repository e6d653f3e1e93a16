import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("progress.ts goes on from its checkpoint, and its watch tells the end", async () => {
  const file = fileURLToPath(new URL("../src/progress.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  const lines = stdout.trimEnd().split("\n")
  assert.includeMembers(lines, ["log: attempt 1 begins with page 1", "log: attempt 2 begins with page 4"])
  assert.strictEqual(lines.at(-1), `end: succeeded {"pages":6,"readByLastAttempt":3}`)
}, 60_000)
