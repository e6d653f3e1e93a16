import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { SlidingWindow, stepsPerWindow } from "../src/SlidingWindow.js"
import { TokenBucket } from "../src/TokenBucket.js"

interface Grant {
  readonly at: number
  readonly end: number
  readonly granted: number
}

/** Tokens whose use may be in the same window as one granted at `at`. */
const inReach = (grants: ReadonlyArray<Grant>, at: number, window: number): number =>
  grants.reduce((sum, { end, granted }) => end > at - window ? sum + granted : sum, 0)

/** Every window of uses, where each token is used at the worst time within its validity. */
const worstWindow = (grants: ReadonlyArray<Grant>, window: number): number =>
  Math.max(
    0,
    ...grants.map(({ at }) =>
      grants.reduce((sum, other) => other.at <= at && other.end > at - window ? sum + other.granted : sum, 0)
    )
  )

const requests = fc.array(
  fc.record({
    pause: fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 1_500 })),
    min: fc.integer({ min: 1, max: 20 }),
    more: fc.integer({ min: 0, max: 30 }),
    validMs: fc.integer({ min: 0, max: 500 })
  }),
  { maxLength: 150 }
)

describe("SlidingWindow", () => {
  it("never lets more through in any window, wherever it begins, and keeps at most a step back", () => {
    fc.assert(fc.property(requests, fc.integer({ min: 20, max: 60 }), (all, limit) => {
      const window = 1_000
      const step = window / stepsPerWindow
      const rule = new SlidingWindow(limit, window)
      const grants: Array<Grant> = []
      let now = 1_000_000
      for (const { min, more, pause, validMs } of all) {
        now += pause
        const { granted, waitMs } = rule.grant(now, { min, want: min + more, validMs })
        // What a limiter without steps would have to give at most, and one that rounds up at least.
        const free = limit - inReach(grants, now, window)
        const rounded = limit - inReach(grants.map((each) => ({ ...each, end: each.end + step })), now, window)
        assert.isAtMost(granted, free)
        assert.isAtLeast(granted, rounded >= min ? Math.min(rounded, min + more) : 0)
        if (granted > 0) grants.push({ at: now, end: now + validMs, granted })
        else assert.isAbove(waitMs, 0)
      }
      assert.isAtMost(worstWindow(grants, window), limit)
    }))
  })

  it("grants after the wait it told, and not a step before", () => {
    fc.assert(fc.property(requests, (all) => {
      const rule = new SlidingWindow(20, 1_000)
      let now = 5_000
      for (const { min, pause, validMs } of all) {
        now += pause
        const { granted, waitMs } = rule.grant(now, { min, want: min, validMs })
        if (granted > 0) continue
        const early = rule.grant(now + waitMs - 0.001, { min, want: min, validMs })
        assert.strictEqual(early.granted, 0)
        now += waitMs
        assert.strictEqual(rule.grant(now, { min, want: min, validMs }).granted, min)
      }
    }))
  })
})

describe("TokenBucket", () => {
  it("gives in any time at most its depth and what its rate brings", () => {
    fc.assert(fc.property(requests, fc.integer({ min: 20, max: 60 }), (all, limit) => {
      const bucket = new TokenBucket(limit, 1_000, 20)
      // The plain bucket: a level that rises and is capped.
      let level = 20
      let now = 7_000
      for (const { min, more, pause } of all) {
        now += pause
        level = Math.min(20, level + pause * limit / 1_000)
        const { granted } = bucket.grant(now, { min, want: min + more, validMs: 0 })
        const expected = Math.floor(level + 1e-6) >= min ? Math.min(Math.floor(level + 1e-6), min + more) : 0
        assert.strictEqual(granted, expected)
        level -= granted
      }
    }))
  })
})
