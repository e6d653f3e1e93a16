import { assert, describe, it } from "@effect/vitest"
import { jain, tenantOf } from "../src/tenants.js"

describe("tenants", () => {
  it("give one of them nine of ten jobs, and the others the same number each", () => {
    const jobs = new Int32Array(100)
    for (let index = 0; index < 9_900; index++) jobs[tenantOf(index, 100)]! += 1
    assert.strictEqual(jobs[0], 8_910)
    assert.deepStrictEqual([...new Set(jobs.slice(1))], [10])
  })

  it("share by Jain's index", () => {
    assert.strictEqual(jain([7, 7, 7]), 1)
    assert.strictEqual(jain([9, 0, 0]), 1 / 3)
    assert.strictEqual(jain([]), 0)
  })
})
