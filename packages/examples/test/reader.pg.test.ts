import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

it("reader.ts enqueues and awaits without a node", async () => {
  const file = fileURLToPath(new URL("../src/reader.ts", import.meta.url))

  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", file])

  const lines = stdout.trimEnd().split("\n").slice(-2)
  assert.strictEqual(lines[0], "9 16 25")
  assert.match(lines[1]!, /^ClusterUnavailable: .*calls no node/)
}, 60_000)
