import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { type Share, targets } from "../src/Credit.js"

const share: fc.Arbitrary<Share> = fc.record({
  credit: fc.nat(50),
  running: fc.nat(50),
  hungry: fc.boolean(),
  leaving: fc.boolean()
})
const idle: Share = { credit: 0, running: 0, hungry: false, leaving: false }

describe("Credit.targets", { timeout: 30_000 }, () => {
  it("never gives more than the slots, nothing to a leaving node, and at least 1 to each other while that goes", () => {
    fc.assert(fc.property(fc.nat(60), fc.array(share, { maxLength: 8 }), (slots, shares) => {
      const given = targets(slots, shares)
      const staying = shares.filter((each) => !each.leaving).length

      assert.isAtMost(given.reduce((sum, each) => sum + each, 0), slots)
      given.forEach((each, index) => {
        assert.isTrue(Number.isInteger(each) && each >= 0)
        if (shares[index]!.leaving) assert.strictEqual(each, 0)
        else if (slots >= staying) assert.isAtLeast(each, 1)
      })
    }))
  })

  it("gives all slots out, and to a hungry node at least an equal share", () => {
    fc.assert(fc.property(fc.nat(60), fc.array(share, { minLength: 1, maxLength: 8 }), (slots, some) => {
      const shares = some.map((each) => ({ ...each, leaving: false }))
      const given = targets(slots, shares)

      const sum = given.reduce((total, each) => total + each, 0)
      if (shares.some((each) => each.hungry) || shares.length > 0) assert.strictEqual(sum, slots)
      given.forEach((each, index) => {
        if (shares[index]!.hungry) assert.isAtLeast(each, Math.floor(slots / shares.length))
      })
    }))
  })

  it("moves what an idle node does not use to the hungry one", () => {
    assert.deepStrictEqual(targets(16, [idle, { ...idle, hungry: true }]), [1, 15])
    assert.deepStrictEqual(targets(16, [{ ...idle, running: 3 }, { ...idle, hungry: true }]), [4, 12])
    assert.deepStrictEqual(targets(16, [{ ...idle, running: 12 }, { ...idle, hungry: true }]), [8, 8])
    assert.deepStrictEqual(targets(5, [idle, idle]), [3, 2])
    assert.deepStrictEqual(targets(1, [idle, { ...idle, hungry: true }]), [0, 1])
  })
})
