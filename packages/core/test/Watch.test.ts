import { assert, describe, it } from "@effect/vitest"
import type { Run } from "@orrery/core/Run"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { noNotes, type RunProgress, shownNotes, withReport } from "@orrery/core/RunNotes"
import { isFinal, moves, type RunState } from "@orrery/core/RunState"
import * as Watch from "@orrery/core/Watch"
import { FastCheck as fc } from "effect"

const id = unsafeMakeRunId(1_700_000_000_000)
const runOf = (state: RunState, attempt: number): Run => ({
  id,
  namespace: "default",
  queue: "q",
  partition: 0,
  task: "t",
  state,
  priority: 5,
  createdAt: 0,
  scheduledAt: 0,
  startedAt: null,
  finishedAt: null,
  attempt,
  payload: "1",
  result: null,
  failure: null,
  worker: null,
  waitsFor: null
})
const tags = ({ changes }: Watch.RunChanges) => changes.map(({ change }) => change._tag)

interface Moment {
  readonly run: Run
  readonly progress: RunProgress | null
}

/** A life of a run by legal moves, with what it tells while it runs; after each step. */
const lives: fc.Arbitrary<ReadonlyArray<Moment>> = fc.array(
  fc.record({ move: fc.nat(), lines: fc.nat({ max: 30 }), progress: fc.boolean() }),
  { minLength: 1, maxLength: 30 }
).map((steps) => {
  let state: RunState = "scheduled"
  let attempt = 0
  let leaseLines = 0
  let notes = noNotes(id)
  const life: Array<Moment> = [{ run: runOf(state, 0), progress: null }]
  for (const { lines, move, progress } of steps) {
    if (isFinal(state)) break
    const next: RunState = moves[state][move % moves[state].length]!
    if (next === "running") {
      attempt += 1
      leaseLines = 0
    }
    state = next
    if (state === "running") {
      notes = withReport(notes, {
        partitionId: 1,
        runId: id,
        attempt,
        lease: attempt,
        progress: progress ? `${life.length}` : undefined,
        firstLine: leaseLines + 1,
        lines: Array.from({ length: lines }, (_, n) => ({ at: 0, text: `${attempt}.${leaseLines + 1 + n}` })),
        checkpoint: undefined
      }, 0)
      leaseLines += lines
    }
    life.push({ run: runOf(state, attempt), progress: notes.lease === 0 ? null : shownNotes(notes) })
  }
  return life
})

describe("a watch of a run", () => {
  it("tells how it is, then what changes, and that it is over once it is final", () => {
    const first = Watch.changesOf("", runOf("ready", 0), null)
    const same = Watch.changesOf(first.cursor, runOf("ready", 0), null)
    const next = Watch.changesOf(first.cursor, runOf("running", 1), null)
    const end = Watch.changesOf(next.cursor, runOf("succeeded", 1), null)
    const after = Watch.changesOf(end.cursor, runOf("succeeded", 1), null)

    assert.deepStrictEqual([tags(first), tags(same), tags(next), tags(end)], [["state"], [], ["state"], ["end"]])
    assert.deepStrictEqual([end.isOver, Watch.isEnd(end.cursor), Watch.isEnd(next.cursor)], [true, true, false])
    assert.deepStrictEqual(after, { changes: [], cursor: end.cursor, isOver: true })
  })

  it("tells a gap where it has moved more than once", () => {
    const { cursor } = Watch.changesOf("", runOf("ready", 0), null)

    assert.deepStrictEqual(tags(Watch.changesOf(cursor, runOf("succeeded", 1), null)), ["gap", "end"])
    assert.deepStrictEqual(tags(Watch.changesOf(cursor, runOf("retrying", 2), null)), ["gap", "state"])
  })

  it("begins anew with a cursor that is none", () => {
    for (
      const cursor of [
        "x",
        "r1.running.1.1",
        "r1.nowhere.0.0.0",
        "q1.u.5.",
        "r1.running.1.1.1.1",
        `r1.${"9".repeat(200)}`
      ]
    ) {
      assert.deepStrictEqual(tags(Watch.changesOf(cursor, runOf("running", 1), null)), ["state"])
    }
  })

  it("tells each line once and the end always, however seldom it looks and wherever it is resumed", () => {
    fc.assert(
      fc.property(lives, fc.infiniteStream(fc.nat({ max: 6 })), fc.infiniteStream(fc.nat()), (life, skips, stops) => {
        let cursor = ""
        let at = 0
        const lines: Array<string> = []
        let missed = 0
        let end: RunState | undefined
        for (;;) {
          const { progress, run } = life[at]!
          const found = Watch.changesOf(cursor, run, progress)
          // The reader may stop after any of them.
          const taken = found.changes.slice(0, 1 + stops.next().value % Math.max(1, found.changes.length))
          for (const { change, cursor: after } of taken) {
            cursor = after
            if (change._tag === "log") {
              missed += change.missed
              lines.push(...change.lines.map(({ text }) => text))
            }
            if (change._tag === "end") end = change.run.state
          }
          assert.isAtMost(cursor.length, Watch.cursorLengthMax)
          if (taken.length < found.changes.length) continue
          if (at === life.length - 1) break
          at = Math.min(life.length - 1, at + 1 + skips.next().value)
        }

        const last = life.at(-1)!
        const isOver = isFinal(last.run.state)
        assert.strictEqual(end, isOver ? last.run.state : undefined)
        assert.strictEqual(new Set(lines).size, lines.length)
        assert.strictEqual(lines.length + missed, last.progress?.lineCount ?? 0)
      })
    )
  })
})

describe("a cursor of a queue", () => {
  it("comes back as it was, and begins anew when it is none", () => {
    const position = { since: 1_700_000_000_000, isBehind: true, hints: "17.5" }

    assert.deepStrictEqual(Watch.queuePositionOf(Watch.queueCursorOf(position)), position)
    for (const cursor of ["", "q1.b..x", "q1.u.-1.", "r1.ready.0.0.0", `q1.u.5.${"x".repeat(65)}`]) {
      assert.isUndefined(Watch.queuePositionOf(cursor).since)
    }
  })
})
