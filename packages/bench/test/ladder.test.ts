import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { climb } from "../src/ladder.js"
import { passes } from "../src/workloads/w5.js"

const rates = [250, 500, 1_000, 2_000]

/** Climbs a system that holds up to `most`; `flaky` rates fail their first attempt. */
const climbed = (most: number, from: number, flaky: ReadonlyArray<number> = []) => {
  const tried: Array<number> = []
  const attempt = (rate: number) =>
    Effect.sync(() => {
      const isFirst = !tried.includes(rate)
      tried.push(rate)
      return rate <= most && !(isFirst && flaky.includes(rate))
    })
  return Effect.map(climb({ rates, from, attempts: 2 }, attempt), (highest) => ({ highest, tried }))
}

describe("ladder", () => {
  it.effect("goes up until a step fails twice", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* climbed(500, 0), { highest: 500, tried: [250, 500, 1_000, 1_000] })
    }))

  it.effect("goes down when the first step fails, and no further than the first that holds", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* climbed(500, 3), { highest: 500, tried: [2_000, 2_000, 1_000, 1_000, 500] })
    }))

  it.effect("forgives one failed attempt", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* climbed(500, 0, [500]), {
        highest: 500,
        tried: [250, 500, 500, 1_000, 1_000]
      })
    }))

  it.effect("is 0 when no step holds", () =>
    Effect.gen(function*() {
      const { highest } = yield* climbed(0, 1)

      assert.strictEqual(highest, 0)
    }))

  it("lets a hundredth of the jobs be late, and counts those that never start as late", () => {
    assert.isTrue(passes({ jobs: 1_000, late: 10 }))
    assert.isFalse(passes({ jobs: 1_000, late: 11 }))
  })
})
