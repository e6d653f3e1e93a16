import { makeBooks } from "@orrery/cluster/LimiterEntity"
import type { LimitBook } from "@orrery/core/LimitBook"
import { assert, describe, it } from "@effect/vitest"

const rate = { name: "calls", limit: 5, perMs: 1_000, exactness: "strict", burst: 5 } as const
const permit = { name: "gpu", limit: 1, leaseMs: 10_000, exactness: "strict" } as const

const opensAt = (book: LimitBook, from: number): number => {
  const { granted, waitMs } = book.grant(rate, { min: 1, want: 1, validMs: 10 }, from)!
  return granted > 0 ? from : from + waitMs
}

describe("books of limiter actors", () => {
  it("are sure of what came after their node got the shard, whenever the actor is first asked", () => {
    const bookOf = makeBooks()

    assert.strictEqual(opensAt(bookOf("1", 50_000, 90_000), 90_000), 90_000)
    assert.strictEqual(opensAt(bookOf("2", 50_000, 50_200), 50_200), 51_250)
    assert.isTrue(bookOf("3", 50_000, 90_000).acquire(permit, "a", 90_000)!.isHeld)
    assert.deepStrictEqual(bookOf("4", 50_000, 53_000).acquire(permit, "a", 53_000), { isHeld: false, waitMs: 7_000 })
  })

  it("are not sure of what an actor before them has granted on the same node, or while nobody knows who has the shard", () => {
    const bookOf = makeBooks()
    bookOf("1", 50_000, 60_000).grant(rate, { min: 5, want: 5, validMs: 250 }, 89_999)

    assert.strictEqual(opensAt(bookOf("1", 50_000, 90_000), 90_000), 91_250)
    assert.strictEqual(opensAt(bookOf("1", 95_000, 99_000), 99_000), 99_000)
    assert.strictEqual(opensAt(bookOf("2", undefined, 99_000), 99_000), 100_250)
  })
})
