import { assert, describe, it } from "@effect/vitest"
import { between, generate } from "../src/docsPage.js"
import type { Result } from "../src/Result.js"

const resultOf = (at: string, value: number, sizes: Partial<Result["sizes"]> = {}): Result => ({
  at,
  command: "W1 --write",
  sizes: { quick: false, scale: 1, seed: 1, ...sizes },
  rounds: 1,
  machine: { cpu: "a <fast> one", cores: 2, memoryGiB: 8, system: "Linux x64", node: "v20" },
  postgres: { server_version: "18.4", fsync: "on" },
  systems: [],
  figures: [
    {
      workload: "W1",
      title: "bulk enqueue",
      unit: "jobs/s",
      better: "higher",
      all: {
        "orrery:default": { values: [value], details: { jobs: 10 } },
        "graphile:batch": { values: [100], details: {} }
      },
      missing: { "dbos:tuned": "failed: no\nsecond line" }
    },
    ...[1, 2].map((x) => ({
      workload: `scale-nodes@${x}`,
      title: "drain, by nodes",
      unit: "jobs/s",
      better: "higher" as const,
      all: { "orrery:default": { values: [x * 1_000], details: {} } },
      missing: {}
    }))
  ]
})

describe("docs page", () => {
  it("replaces what is between the marks and keeps what is around them, again and again", () => {
    const first = between("# Benchmarks\n\nBefore.\n", "one")
    const second = between(`${first}\nAfter.\n`, "two")

    assert.match(second, /^# Benchmarks\n\nBefore\.\n\n<!-- bench: .*-->\n\ntwo\n\n<!-- bench: end -->\n\nAfter\.\n$/)
    assert.strictEqual(between(second, "two"), second)
  })

  it("shows every run beside the others, and plots the newest figures", () => {
    const { plots, text } = generate([resultOf("2026-11-24T10:00", 150), resultOf("2026-11-25T10:00", 200)])

    assert.include(text, "| W1 | 150 jobs/s, **1.5×** graphile:batch (100) | 200 jobs/s, **2×** graphile:batch (100) |")
    assert.include(text, "- dbos:tuned: failed: no\n")
    assert.deepStrictEqual([...plots.keys()], ["W1.svg", "scale-nodes.svg"])
    assert.include(plots.get("W1.svg"), ">200</text>")
    assert.include(plots.get("scale-nodes.svg"), "<polyline")
  })

  it("says which runs were quick or small, and plots none of a small one beside one of full size", () => {
    const small = resultOf("2026-11-26T10:00", 300, { quick: true, scale: 0.01 })
    const { plots, text } = generate([resultOf("2026-11-25T10:00", 200), small])

    assert.include(text, "| figure | 2026-11-25 10:00 | 2026-11-26 10:00, quick, scale 0.01 |")
    assert.include(plots.get("W1.svg"), ">200</text>")
    assert.include(generate([small]).plots.get("W1.svg"), ">300</text>")
  })
})
