import { assert, describe, it } from "@effect/vitest"
import { DatabaseClock, driftMax } from "../src/DatabaseClock.js"

/** The clock of a machine that runs `speed` times as fast as the database's. */
const drifting = (speed: number) => {
  const state = { trueMs: 0 }
  return { state, clock: new DatabaseClock(() => state.trueMs * speed) }
}

describe("DatabaseClock", () => {
  it("is never ahead of the database, however long nothing was heard, while clocks drift as little as they may", () => {
    const { clock, state } = drifting(1 + driftMax)
    for (const silenceMs of [10, 1_000, 4_000, 20_000, 3_600_000]) {
      clock.observe(state.trueMs)
      state.trueMs += silenceMs
      assert.isAtMost(clock.now(), state.trueMs)
      assert.isAtLeast(clock.now(), state.trueMs - 2.1 * driftMax * silenceMs - 1)
    }
  })

  it("shows nothing before it has heard anything", () => {
    assert.strictEqual(drifting(1).clock.now(), -Infinity)
  })

  it("prefers the answer that took the least time", () => {
    const { clock, state } = drifting(1)
    clock.observe(0)
    state.trueMs = 1_000
    // Taken 300 ms before it was received.
    clock.observe(700)
    assert.closeTo(clock.now(), 1_000, 2 * driftMax * 1_000)
  })

  it("is stale when nothing was heard for two generations", () => {
    const { clock, state } = drifting(1)
    clock.observe(0)
    state.trueMs = 9_000
    assert.isFalse(clock.isStale)
    state.trueMs = 10_001
    assert.isTrue(clock.isStale)
    clock.observe(10_001)
    assert.isFalse(clock.isStale)
  })

  it("follows a database clock that was set back, and one that was set forward", () => {
    const { clock, state } = drifting(1)
    clock.observe(100_000)
    state.trueMs = 10
    clock.observe(50_000)
    assert.strictEqual(clock.now(), 50_000)
    clock.observe(200_000)
    assert.strictEqual(clock.now(), 200_000)
  })
})
