import { assert, it } from "@effect/vitest"
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as HistoryFile from "../src/HistoryFile.js"

it("reads the events of all processes in order of time, and forgets a last line that was not finished", () => {
  const folder = mkdtempSync(join(tmpdir(), "orrery-history-"))
  try {
    const one = HistoryFile.open(folder, "one")
    const other = HistoryFile.open(folder, "other")
    one.write({ _tag: "fault", what: "1" })
    other.write({ _tag: "fault", what: "2" })
    one.write({ _tag: "healed", what: "3" })
    appendFileSync(join(folder, readdirSync(folder)[0]!), "{\"at\": 1, \"by\": \"one")

    const events = HistoryFile.readAll(folder)

    assert.deepStrictEqual(events.map((event) => [event.by, event._tag, "what" in event ? event.what : ""]), [
      ["one", "fault", "1"],
      ["other", "fault", "2"],
      ["one", "healed", "3"]
    ])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
