/** Rounds of turns, with an event loop of the test's own. */
import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { ActorTurns } from "../src/ActorTurns.js"

describe("ActorTurns", () => {
  let callbacks: Array<() => void> = []
  let now = 0
  const goOn = (): void => {
    for (const callback of callbacks.splice(0)) callback()
  }
  beforeEach(() => {
    callbacks = []
    now = 0
    vi.spyOn(performance, "now").mockImplementation(() => now)
    vi.spyOn(globalThis, "setImmediate").mockImplementation(((run: () => void) => callbacks.push(run)) as never)
  })
  afterEach(() => void vi.restoreAllMocks())

  it("gives all that have asked their turn in one round, in order; who asks meanwhile comes in the next", () => {
    const turns = new ActorTurns()
    const seen: Array<string> = []
    turns.add(() => {
      seen.push("a")
      turns.add(() => void seen.push("a again"))
    })
    turns.add(() => void seen.push("b"))
    assert.strictEqual(callbacks.length, 1)

    goOn()
    assert.deepStrictEqual(seen, ["a", "b"])

    goOn()
    assert.deepStrictEqual(seen, ["a", "b", "a again"])
    assert.strictEqual(callbacks.length, 0)
  })

  it("lets others in when a round is long, and nobody loses the place", () => {
    const turns = new ActorTurns()
    const seen: Array<number> = []
    for (let at = 0; at < 100; at++) {
      turns.add(() => {
        now += 1
        seen.push(at)
        if (at === 0) turns.add(() => void seen.push(1_000))
      })
    }

    goOn()
    assert.isBelow(seen.length, 20)
    let rounds = 1
    for (; callbacks.length > 0; rounds++) goOn()

    assert.deepStrictEqual(seen, [...Array.from({ length: 100 }, (_, at) => at), 1_000])
    assert.isAtLeast(rounds, 10)
  })

  it("gives the others their turns after one that throws", () => {
    const turns = new ActorTurns()
    const seen: Array<string> = []
    turns.add(() => {
      throw new Error("a bug")
    })
    turns.add(() => void seen.push("b"))

    assert.throws(goOn, "a bug")
    goOn()

    assert.deepStrictEqual(seen, ["b"])
  })
})
