import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { median, quantiles, randomOf, randomText, ratio, spread } from "../src/statistics.js"

const numbers = fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 50 })

describe("statistics", () => {
  it("takes the value in the middle, or the mean of the two there", () => {
    assert.strictEqual(median([3, 1, 2]), 2)
    assert.strictEqual(median([4, 1, 3, 2]), 2.5)
    assert.isNaN(median([]))
  })

  it.prop("keeps the median between the smallest and the largest", [numbers], ([values]) => {
    const found = spread(values)

    return found.min <= found.median && found.median <= found.max && found.n === values.length
  })

  it("gives quantiles that were measured", () => {
    const hundred = Array.from({ length: 100 }, (_, at) => 100 - at)

    assert.deepStrictEqual(quantiles(hundred), { p50: 50, p95: 95, p99: 99, max: 100 })
    assert.deepStrictEqual(quantiles([7]), { p50: 7, p95: 7, p99: 7, max: 7 })
    assert.deepStrictEqual(quantiles([]), { p50: 0, p95: 0, p99: 0, max: 0 })
  })

  it("says how many times better ours is: twice the rate, or half the time", () => {
    assert.strictEqual(ratio(200, 100, "higher"), 2)
    assert.strictEqual(ratio(5, 10, "lower"), 2)
    assert.isNull(ratio(5, 0, "higher"))
  })

  it("makes the same text for the same seed", () => {
    const one = randomText(64, randomOf(1))

    assert.strictEqual(one, randomText(64, randomOf(1)))
    assert.notStrictEqual(one, randomText(64, randomOf(2)))
    assert.match(one, /^[\w-]{64}$/)
  })
})
