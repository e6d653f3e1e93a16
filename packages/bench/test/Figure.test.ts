import { assert, describe, it } from "@effect/vitest"
import { type Figure, verdict } from "../src/Figure.js"
import { Effect } from "effect"
import { check, checkAgain, recordedFor } from "../src/Result.js"
import { figuresOf, rotated } from "../src/rounds.js"
import type { Measured } from "../src/Workload.js"

const figureOf = (better: Figure["better"], values: Readonly<Record<string, ReadonlyArray<number>>>): Figure => ({
  workload: "W0",
  title: "nothing",
  unit: "jobs/s",
  better,
  all: Object.fromEntries(Object.entries(values).map(([id, list]) => [id, { values: list, details: {} }])),
  missing: {}
})

const ours = "orrery:default"

describe("verdict", () => {
  it("compares medians with the best peer", () => {
    const found = verdict(figureOf("higher", { [ours]: [90, 100, 300], "a:x": [50], "b:x": [20, 30] }))

    assert.deepStrictEqual(found, {
      workload: "W0",
      unit: "jobs/s",
      ours: 100,
      bestPeer: "a:x",
      best: 50,
      ratio: 2,
      all: {
        [ours]: { median: 100, min: 90, max: 300, n: 3 },
        "a:x": { median: 50, min: 50, max: 50, n: 1 },
        "b:x": { median: 25, min: 20, max: 30, n: 2 }
      }
    })
  })

  it("takes the shortest time for the best", () => {
    const found = verdict(figureOf("lower", { [ours]: [5], "a:x": [10], "b:x": [20] }))

    assert.strictEqual(found.bestPeer, "a:x")
    assert.strictEqual(found.ratio, 2)
  })

  it("shows what the database alone gives, and does not take it for a peer", () => {
    const found = verdict(figureOf("higher", { [ours]: [10], "raw:postgres": [40], "a:x": [5] }))

    assert.deepInclude(found, { bestPeer: "a:x", best: 5, ratio: 2 })
    assert.strictEqual(found.all["raw:postgres"]?.median, 40)
  })

  it("has no ratio without a peer, or without us", () => {
    assert.deepInclude(verdict(figureOf("higher", { [ours]: [5] })), { bestPeer: null, best: null, ratio: null })
    assert.deepInclude(verdict(figureOf("higher", { "a:x": [5] })), { ours: null, best: 5, ratio: null })
  })
})

describe("rounds", () => {
  it("lets each system go first in turn", () => {
    assert.deepStrictEqual([0, 1, 2, 3].map((by) => rotated(["a", "b", "c"], by).join("")), [
      "abc",
      "bca",
      "cab",
      "abc"
    ])
  })

  it("gathers the values of each figure of a case, and keeps why a system has none", () => {
    const measured = (workload: string, value: number): Measured => ({
      workload,
      value,
      unit: "ms",
      better: "lower",
      details: { value }
    })
    const found = figuresOf(
      { id: "W4", title: "latency" },
      new Map([[ours, [measured("W4", 1), measured("W4-p50", 2), measured("W4", 3), measured("W4-p50", 4)]]]),
      new Map([["a:x", "not on PostgreSQL"]])
    )

    assert.deepStrictEqual(found.map(({ workload }) => workload), ["W4", "W4-p50"])
    assert.deepStrictEqual(found[0]?.all[ours], { values: [1, 3], details: { value: 3 } })
    assert.deepStrictEqual(found[0]?.missing, { "a:x": "not on PostgreSQL" })
  })
})

describe("check", () => {
  it("asks for the ratios of the workloads that are measured, and for no others", () => {
    const recorded = { at: "", ratios: { W2: 1, "W2-history": 2, "W20": 3, "scale-nodes@1": 4 } }

    assert.deepStrictEqual(recordedFor(recorded, ["W2"]).ratios, { W2: 1, "W2-history": 2 })
  })

  it("holds down to two thirds of each recorded ratio, and not without a figure", () => {
    const found = check(
      { at: "", ratios: { W0: 3, W1: 3, W2: 3 } },
      [
        { ...verdict(figureOf("higher", { [ours]: [20], "a:x": [10] })), workload: "W0" },
        { ...verdict(figureOf("higher", { [ours]: [19], "a:x": [10] })), workload: "W1" }
      ]
    )

    assert.deepStrictEqual(found.map(({ holds, now, workload }) => [workload, now, holds]), [
      ["W0", 2, true],
      ["W1", 1.9, false],
      ["W2", null, false]
    ])
  })

  it.effect("measures again what is lost, twice at most, and it holds if it does once", () =>
    Effect.gen(function*() {
      const of = (workload: string, ratio: number) => ({
        ...verdict(figureOf("higher", { [ours]: [10 * ratio], "a:x": [10] })),
        workload
      })
      const asked: Array<ReadonlyArray<string>> = []
      const later = [[of("W1", 2.5), of("W2", 0.5)], [of("W2", 0.5)]]
      const found = yield* checkAgain({ at: "", ratios: { W0: 3, W1: 3, W2: 3 } }, [
        of("W0", 3),
        of("W1", 1),
        of("W2", 1)
      ], (lost) =>
        Effect.sync(() => {
          asked.push(lost)
          return later[asked.length - 1]!
        }))

      assert.deepStrictEqual(asked, [["W1", "W2"], ["W2"]])
      assert.deepStrictEqual(found.map(({ holds, now, workload }) => [workload, now, holds]), [
        ["W0", 3, true],
        ["W1", 2.5, true],
        ["W2", 1, false]
      ])
    }))
})
