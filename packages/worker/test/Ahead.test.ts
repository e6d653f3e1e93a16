import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { aheadMin, aheadMs, makePace, noteEnd, noteStall, type Pace } from "../src/Ahead.js"

const after = (pace: Pace, ...times: ReadonlyArray<number>) => {
  for (const ms of times) noteEnd(pace, ms, true)
  return pace
}
const many = (count: number, ms: number) => Array.from({ length: count }, () => ms)

describe("Ahead", { timeout: 30_000 }, () => {
  it("lets nothing wait before attempts have proved short, nor when they take longer than 100 ms a slot", () => {
    assert.strictEqual(makePace(4).allowed, 0)
    assert.strictEqual(after(makePace(4), ...many(200, 500)).allowed, 0)
    assert.strictEqual(after(makePace(4), ...many(200, 1), ...many(64, 1_000)).allowed, 0)
  })

  it("lets what is done in 100 ms wait, up to the slots or 64", () => {
    // 4 slots at 40 ms: one is done every 10 ms.
    const some = after(makePace(4), ...many(300, 40)).allowed
    assert.isAtLeast(some, 5)
    assert.isAtMost(some, 10)
    assert.strictEqual(after(makePace(4), ...many(300, 0.1)).allowed, aheadMin)
    assert.strictEqual(after(makePace(200), ...many(300, 0.1)).allowed, 200)
  })

  it("never exceeds its bound nor twice what the mean allows", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.array(fc.double({ min: 0.01, max: 2_000, noNaN: true })), (
        slots,
        times
      ) => {
        const pace = makePace(slots)
        for (const ms of times) {
          noteEnd(pace, ms, true)

          assert.isAtMost(pace.allowed, Math.max(slots, aheadMin))
          if (pace.allowed > 0) assert.isBelow(pace.allowed, 2 * Math.floor(aheadMs / pace.costMs) + 1)
        }
      })
    )
  })

  it("changes seldom while the attempts vary", () => {
    const pace = after(makePace(4), ...many(100, 10))
    let changes = 0
    for (let at = 0; at < 2_000; at++) if (noteEnd(pace, 5 + (at * 7) % 11, true)) changes += 1

    assert.isAtMost(changes, 2)
  })

  it("lets nothing wait after a stall until attempts have proved short again; less when slots were only slow", () => {
    const stuck = after(makePace(4), ...many(300, 1))
    const slow = after(makePace(4), ...many(300, 1))

    noteStall(stuck, true)
    noteStall(slow, false)

    assert.strictEqual(stuck.allowed, 0)
    assert.strictEqual(slow.allowed, aheadMin / 2)
    assert.isAbove(after(stuck, ...many(20, 1)).allowed, 0)
  })
})
