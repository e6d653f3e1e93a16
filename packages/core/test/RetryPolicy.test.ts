import { assert, describe, it } from "@effect/vitest"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import { Chunk, Duration, Effect, FastCheck as fc, Schedule } from "effect"

const delays = (policy: RetryPolicy.RetryPolicy, random = 0.5) =>
  Array.from({ length: policy.maxAttempts }, (_, at) => RetryPolicy.delayMs(policy, at + 1, random))

const policies: fc.Arbitrary<RetryPolicy.RetryPolicy> = fc.oneof(
  fc.record({
    maxAttempts: fc.integer({ min: 1, max: 8 }),
    jitter: fc.double({ min: 0, max: 1, noNaN: true }),
    base: fc.integer({ min: 0, max: 10_000 }),
    factor: fc.integer({ min: 1, max: 5 }),
    max: fc.integer({ min: 0, max: 60_000 })
  }).map(RetryPolicy.exponential),
  fc.record({ maxAttempts: fc.integer({ min: 1, max: 8 }), delay: fc.integer({ min: 0, max: 10_000 }) })
    .map(RetryPolicy.fixed),
  fc.record({ base: fc.integer({ min: 0, max: 900 }), step: fc.integer({ min: 0, max: 900 }) }).map(RetryPolicy.linear),
  fc.record({ delays: fc.array(fc.integer({ min: 0, max: 10_000 }), { minLength: 1, maxLength: 5 }) })
    .map(RetryPolicy.list)
)

describe("RetryPolicy", () => {
  it("gives the delays of its kind, and none after the last attempt", () => {
    assert.deepStrictEqual(delays(RetryPolicy.standard), [1_000, 2_000, 4_000, 8_000, undefined])
    assert.deepStrictEqual(
      delays(RetryPolicy.exponential({ base: 100, factor: 10, max: "5 seconds", maxAttempts: 4 })),
      [100, 1_000, 5_000, undefined]
    )
    assert.deepStrictEqual(delays(RetryPolicy.fixed({ delay: 50, maxAttempts: 3 })), [50, 50, undefined])
    assert.deepStrictEqual(
      delays(RetryPolicy.linear({ base: 10, step: 5, max: 18, maxAttempts: 4 })),
      [10, 15, 18, undefined]
    )
    assert.deepStrictEqual(delays(RetryPolicy.list({ delays: [7, "1 second"] })), [7, 1_000, undefined])
    assert.deepStrictEqual(delays(RetryPolicy.list({ delays: [7], maxAttempts: 3 })), [7, 7, undefined])
    assert.deepStrictEqual(delays(RetryPolicy.none), [undefined])
  })

  it("spreads by its jitter and no further, and repeats itself for the same number", () => {
    fc.assert(
      fc.property(
        policies,
        fc.integer({ min: 1, max: 7 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (policy, attempt, random) => {
          const delay = RetryPolicy.delayMs(policy, attempt, random)
          assert.strictEqual(delay, RetryPolicy.delayMs(policy, attempt, random))
          if (delay === undefined) return assert.isAtLeast(attempt, policy.maxAttempts)
          const base = RetryPolicy.baseDelayMs(policy, attempt)
          assert.isAtLeast(delay, Math.floor(base * (1 - policy.jitter)))
          assert.isAtMost(delay, Math.ceil(base * (1 + policy.jitter)))
        }
      )
    )
  })

  it.effect("says the same as a Schedule", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.exponential({ base: 10, factor: 3, max: 50, jitter: 0, maxAttempts: 5 })
      const waited = yield* Schedule.run(Schedule.delays(RetryPolicy.toSchedule(policy)), 0, Array.from({ length: 9 }))
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(waited).map((each) => Duration.toMillis(each)).filter((ms) => ms > 0),
        [10, 30, 50, 50]
      )
    }))

  it("refuses numbers out of bounds, by name", () => {
    const wrong: ReadonlyArray<readonly [string, () => unknown]> = [
      ["maxAttempts", () => RetryPolicy.exponential({ maxAttempts: 0 })],
      ["maxAttempts", () => RetryPolicy.fixed({ delay: 1, maxAttempts: 1_001 })],
      ["jitter", () => RetryPolicy.exponential({ jitter: 1.5 })],
      ["factor", () => RetryPolicy.exponential({ factor: 0.5 })],
      ["delayMs", () => RetryPolicy.fixed({ delay: "31 days" })],
      ["delaysMs", () => RetryPolicy.list({ delays: [], maxAttempts: 2 })],
      ["delaysMs", () => RetryPolicy.list({ delays: Array.from({ length: 101 }, () => 1) })],
      ["stepMs", () => RetryPolicy.linear({ base: 1, step: "infinity" as never })]
    ]
    for (const [field, make] of wrong) assert.throws(make, new RegExp(field))
  })
})
