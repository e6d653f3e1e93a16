import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("spanning-limits.ts keeps its limits over its queues, and says what a run waits for", async () => {
  const file = fileURLToPath(new URL("../src/spanning-limits.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  const [waits, calls, renders] = stdout.trimEnd().split("\n")
  assert.strictEqual(waits, "a refund waits: RateLimited partner-api")
  const [, count, lines] = /^(\d+) calls, at most (\d+) lines/.exec(calls!) ?? []
  assert.strictEqual(count, "20")
  assert.isAtMost(Number(lines), 10)
  assert.strictEqual(renders, "at most 2 renders and previews at once")
}, 60_000)
