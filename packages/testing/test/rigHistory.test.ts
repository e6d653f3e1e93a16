import { assert, describe, it } from "@effect/vitest"
import * as RigHistory from "../src/rigHistory.js"

const historyOf = (lines: ReadonlyArray<string>, killedAt?: number) => {
  const history = RigHistory.make(["heavy", "light"], () => killedAt ?? 0)
  for (const line of lines) history.onLine("a", `level=INFO message="${line}"`)
  if (killedAt !== undefined) history.killed("a")
  return history
}

describe("history of the rig", () => {
  it("counts what runs together, an end before a beginning at one instant", () => {
    const told = historyOf([
      "heavy begins x 1 10.5;",
      "light begins y 2 11;",
      "light ends y 2 12;",
      "light begins y 3 12;",
      "other begins y 4 12;",
      "heavy ends x 1 13;"
    ]).told()

    assert.strictEqual(RigHistory.mostTogether(told), 2)
    assert.strictEqual(RigHistory.mostTogether(told, ({ task }) => task === "heavy" ? 3 : 1), 4)
    assert.deepStrictEqual([...RigHistory.together(told, { groupOf: ({ key }) => key })], [["x", 1], ["y", 1]])
  })

  it("ends with a killed process what it had begun before, and not what its log told later", () => {
    const told = historyOf(["light begins x 1 10;", "light begins x 2 11;", "light ends x 1 12;"], 11.5).told()

    assert.deepStrictEqual(told.slice(3).map(({ at, n, what }) => [n, what, at]), [[1, "ends", 11.5], [
      2,
      "ends",
      11.5
    ]])
  })

  it("knows whether an attempt has just begun", () => {
    const history = historyOf(["light begins x 1 10;"], 15)

    assert.isTrue(history.hasJustBegun("a", 6))
    assert.isFalse(history.hasJustBegun("a", 5))
    assert.isFalse(history.hasJustBegun("b", 6))
  })
})
