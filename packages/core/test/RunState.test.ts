import { assert, describe, it } from "@effect/vitest"
import { canMove, isFinal, moves, RunState } from "@orrery/core/RunState"
import { readFileSync } from "node:fs"

const page = readFileSync(new URL("../../../docs/run-lifecycle.md", import.meta.url), "utf8")
const diagram = /```mermaid\n([\s\S]*?)```/.exec(page)?.[1] ?? ""
const arrows = [...diagram.matchAll(/^\s*(\S+) --> (\S+?)(?::.*)?$/gm)].map(([, from, to]) => `${from} > ${to}`)

describe("RunState", () => {
  it("has the moves that docs/run-lifecycle.md draws, and no others", () => {
    const inCode = RunState.literals.flatMap((from) => moves[from].map((to) => `${from} > ${to}`))
    const finals = RunState.literals.filter(isFinal).map((state) => `${state} > [*]`)

    assert.deepStrictEqual([...arrows].sort(), [...inCode, ...finals].sort())
  })

  it("names every state in the table of docs/run-lifecycle.md", () => {
    const rows = [...page.matchAll(/^\| `(\w+)` \|/gm)].map(([, state]) => state)

    assert.deepStrictEqual(rows, [...RunState.literals])
  })

  it("never leaves a final state", () => {
    for (const from of RunState.literals) {
      for (const to of RunState.literals) if (isFinal(from)) assert.isFalse(canMove(from, to))
    }
  })

  it("reaches every state from what a new run can be, but for blocked", () => {
    const reached = new Set<RunState>(["scheduled", "ready"])
    for (const state of reached) for (const next of moves[state]) reached.add(next)

    assert.deepStrictEqual(RunState.literals.filter((state) => !reached.has(state)), ["blocked"])
  })
})
