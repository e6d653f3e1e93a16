import { assert, describe, it } from "@effect/vitest"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { lineCharsPerSecond, lineLengthMax, linesPerSecond, reportLinesMax } from "@orrery/core/RunNotes"
import { Notes } from "../src/Notes.js"

const ref = { partitionId: 1, runId: unsafeMakeRunId(1_700_000_000_000), attempt: 1, lease: 1 }

describe("what an attempt tells", () => {
  it("is gathered: the last progress, all lines, and the last checkpoint with all who wait for it", () => {
    const calls: Array<boolean> = []
    const saved: Array<string> = []
    const notes = new Notes((isUrgent) => void calls.push(isUrgent))

    notes.setProgress("1")
    notes.setProgress("2")
    notes.addLine("a", 10, 0)
    notes.saveCheckpoint("1", () => saved.push("first"))
    notes.saveCheckpoint("2", () => saved.push("second"))
    notes.addLine("b", 20, 1)
    const report = notes.take(ref, 30)

    assert.deepStrictEqual(report, {
      ...ref,
      progress: "2",
      firstLine: 1,
      lines: [{ at: 10, text: "a" }, { at: 20, text: "b" }],
      checkpoint: "2"
    })
    assert.deepStrictEqual(calls, [false, false, false, true, true, false])
    assert.deepStrictEqual(saved, [])
    notes.accepted()
    assert.deepStrictEqual(saved, ["first", "second"])
    assert.isFalse(notes.isPending)
  })

  it("is sent again as it was when nobody answered, and what came meanwhile after it", () => {
    const notes = new Notes(() => undefined)
    notes.addLine("a", 1, 0)
    const first = notes.take(ref, 1)
    notes.addLine("b", 2, 0)
    assert.isUndefined(notes.take(ref, 2))

    notes.failed()
    const again = notes.take(ref, 3)
    notes.accepted()
    const next = notes.take(ref, 4)

    assert.deepStrictEqual(again, first)
    assert.deepStrictEqual([next?.firstLine, next?.lines.map(({ text }) => text)], [2, ["b"]])
  })

  it("is cut when it is a flood, and says how much", () => {
    const notes = new Notes(() => undefined)
    for (let n = 0; n < 10_000; n++) notes.addLine(`line ${n}`, n, 0)

    const first = notes.take(ref, 1)!
    notes.accepted()
    notes.addLine("calm", 2_000, 1_500)
    const second = notes.take(ref, 2)!

    assert.strictEqual(first.lines.length, linesPerSecond + 1)
    assert.match(first.lines.at(-1)!.text, /^… 9950 lines \(\d+ characters\) were cut/)
    assert.deepStrictEqual(second.lines.map(({ text }) => text), ["calm"])
  })

  it("is cut by characters too, and a long line by itself", () => {
    const notes = new Notes(() => undefined)
    for (let n = 0; n < 40; n++) notes.addLine("x".repeat(5_000), n, 0)

    const { lines } = notes.take(ref, 1)!

    assert.isAtMost(lines.reduce((sum, { text }) => sum + text.length, 0), lineCharsPerSecond + 200)
    assert.strictEqual(lines[0]!.text, `${"x".repeat(lineLengthMax)} … (5000 characters)`)
    assert.match(lines.at(-1)!.text, /\d+ lines \(\d+ characters\) were cut/)
  })

  it("stays bounded while the owner is away", () => {
    const notes = new Notes(() => undefined)
    for (let n = 0; n < 100_000; n++) notes.addLine("line", n, n * 25)

    assert.isAtMost(notes.take(ref, 1)!.lines.length, reportLinesMax)
  })
})
