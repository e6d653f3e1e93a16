import { assert, describe, it } from "@effect/vitest"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { lineCharsKept, linesKept, noNotes, type NoteReport, withReport } from "@orrery/core/RunNotes"

const runId = unsafeMakeRunId(1_700_000_000_000)
const report = (fields: Partial<NoteReport> = {}): NoteReport => ({
  partitionId: 1,
  runId,
  attempt: 1,
  lease: 10,
  progress: undefined,
  firstLine: 1,
  lines: [],
  checkpoint: undefined,
  ...fields
})
const lines = (...texts: ReadonlyArray<string>) => texts.map((text) => ({ at: 1, text }))
const texts = (notes: ReturnType<typeof noNotes>) => notes.lines.map(({ text }) => text)

describe("notes of a run", () => {
  it("take in a report that comes twice, or in part, once", () => {
    const first = withReport(noNotes(runId), report({ lines: lines("a", "b"), progress: "5" }), 100)
    const again = withReport(first, report({ lines: lines("a", "b"), progress: "5" }), 100)
    const more = withReport(again, report({ firstLine: 2, lines: lines("b", "c") }), 200)

    assert.deepStrictEqual(again, first)
    assert.deepStrictEqual(texts(more), ["a", "b", "c"])
    assert.deepStrictEqual([more.lineCount, more.progress, more.progressCount], [3, "5", 1])
  })

  it("number lines anew for the next attempt, and keep those of the one before", () => {
    const first = withReport(noNotes(runId), report({ lines: lines("a", "b"), progress: "50" }), 100)
    const second = withReport(first, report({ attempt: 2, lease: 11, lines: lines("c"), progress: "0" }), 200)

    assert.deepStrictEqual(second.lines.map(({ attempt, text }) => [attempt, text]), [[1, "a"], [1, "b"], [2, "c"]])
    assert.deepStrictEqual([second.attempt, second.progress, second.progressCount], [2, "0", 2])
  })

  it("are not changed by an attempt of an older lease", () => {
    const later = withReport(noNotes(runId), report({ attempt: 2, lease: 11, progress: "50" }), 200)

    assert.strictEqual(withReport(later, report({ lines: lines("late"), progress: "99" }), 300), later)
  })

  it("keep the newest lines, by number and by characters, and count all", () => {
    let notes = noNotes(runId)
    for (let n = 0; n < 30; n++) {
      const ten = Array.from({ length: 10 }, (_, at) => `${n * 10 + at}`)
      notes = withReport(notes, report({ firstLine: n * 10 + 1, lines: lines(...ten) }), n)
    }
    assert.strictEqual(notes.lines.length, linesKept)
    assert.deepStrictEqual([texts(notes)[0], notes.lineCount], ["100", 300])

    const long = Array.from({ length: 50 }, () => "x".repeat(1_000))
    notes = withReport(notes, report({ firstLine: 301, lines: lines(...long) }), 31)
    assert.isAtMost(notes.lines.reduce((sum, { text }) => sum + text.length, 0), lineCharsKept)
    assert.strictEqual(notes.lineCount, 350)
  })
})
