import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Redacted, TestClock } from "effect"
import type { Description } from "../src/Calls.js"
import { isFailure, measureAll } from "../src/rounds.js"
import { type Bench, NotWithin } from "../src/Stage.js"
import type { Case } from "../src/Workload.js"

const bench: Bench = {
  postgres: { url: Redacted.make(""), pid: Option.none() },
  sizes: { quick: false, scale: 1, seed: 0 },
  programs: new Map(),
  requireDurable: false,
  onOutput: () => undefined
}

const systemOf = (id: string, of: Partial<Description> = {}): Description => ({
  id,
  peer: id.split(":")[0]!,
  version: "1",
  settings: {},
  needs: "postgres",
  durability: "commit",
  keepsHistory: "always",
  workloads: ["W0"],
  hasServe: false,
  hasWorkApart: false,
  driver: "none",
  ...of
})

const caseOf = (run: Case["run"], withinS?: number): Case => ({
  id: "W0",
  title: "nothing",
  inQuick: true,
  ...withinS === undefined ? {} : { withinS },
  run
})

const figure = (value: number) => [{ workload: "W0", value, unit: "s", better: "lower" as const, details: {} }]

const measure = (one: Case, systems: ReadonlyArray<Description>) =>
  measureAll(bench, { cases: [one], systems, rounds: 2, quietly: false, onProgress: () => undefined })

describe("rounds", () => {
  it.effect("say which peer is not done in time, and measure the others", () =>
    Effect.gen(function*() {
      const run: Case["run"] = (_, { id }) => id === "slow:x" ? Effect.never : Effect.succeed(figure(1))
      const measuring = yield* Effect.fork(measure(caseOf(run, 20), [systemOf("slow:x"), systemOf("fast:x")]))

      yield* TestClock.adjust("20 seconds")
      const [found] = yield* Fiber.join(measuring)

      assert.deepStrictEqual(found!.all, { "fast:x": { values: [1, 1], details: {} } })
      assert.deepStrictEqual(found!.missing, { "slow:x": "not within 20 s" })
      assert.isTrue(isFailure(found!.missing["slow:x"]!))
    }))

  it.effect("say what had come about when a measurement gave up", () =>
    Effect.gen(function*() {
      const run = () => new NotWithin({ ms: 1_500, what: "only 2 of 3 jobs have started" })
      const [found] = yield* measure(caseOf(run), [systemOf("slow:x")])

      assert.deepStrictEqual(found!.missing, { "slow:x": "not within 1.5 s: only 2 of 3 jobs have started" })
    }))

  it.effect("say why a system takes no part", () =>
    Effect.gen(function*() {
      const unable = systemOf("a:x", { workloads: [], unsupported: { W0: "it has no queues" } })
      const untuned = systemOf("b:x", { workloads: [] })
      const [found] = yield* measure(caseOf(() => Effect.succeed(figure(1))), [unable, untuned, systemOf("c:x")])

      assert.deepStrictEqual(found!.missing, { "a:x": "it has no queues", "b:x": "no variant of it takes part" })
      assert.isFalse(Object.values(found!.missing).some(isFailure))
    }))
})
