import { assert, describe, it } from "@effect/vitest"
import { makeWedged } from "../src/wedged.js"

describe("a wedged lock connection", () => {
  it("is none while the database is away, nor when it has just come back", () => {
    const isWedged = makeWedged()
    for (let at = 0; at <= 60_000; at += 5_000) assert.isFalse(isWedged(at, at, false))

    assert.isFalse(isWedged(65_000, 65_000, true))
    assert.isFalse(isWedged(70_000, 70_000, true))
    // The refresh has come through.
    assert.isFalse(isWedged(80_000, 1_000, true))
  })

  it("is one when the locks stay unconfirmed though the database answers", () => {
    const isWedged = makeWedged()
    assert.isFalse(isWedged(0, 20_000, true))
    assert.isFalse(isWedged(5_000, 25_000, true))
    assert.isFalse(isWedged(10_000, 30_000, true))
    assert.isTrue(isWedged(15_000, 35_000, true))
  })
})
