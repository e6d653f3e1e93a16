import { assert, describe, it } from "@effect/vitest"
import { RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import { FastCheck as fc, Schema } from "effect"

describe("RunId", () => {
  it("is a UUID version 7, and grows within a process whatever its clock does", () => {
    const clock = fc.array(fc.integer({ min: -100_000, max: 100_000 }), { minLength: 2, maxLength: 500 })
    fc.assert(fc.property(clock, (steps) => {
      const ids = steps.map((step) => unsafeMakeRunId(1_800_000_000_000 + step))
      ids.forEach((id, at) => {
        assert.isTrue(Schema.is(RunId)(id))
        assert.strictEqual(id[14], "7")
        assert.include("89ab", id[19]!)
        if (at > 0) assert.isTrue(id > ids[at - 1]!)
      })
    }))
  })

  it("does not repeat when more are made in a millisecond than its counter holds", () => {
    const ids = Array.from({ length: 20_000 }, () => unsafeMakeRunId(1_900_000_000_000))
    assert.strictEqual(new Set(ids).size, ids.length)
    assert.deepStrictEqual([...ids].sort(), ids)
  })
})
