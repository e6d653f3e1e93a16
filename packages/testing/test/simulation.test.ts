/**
 * Simulated histories. `SEED=n` begins with another seed (it is printed); `npm run simulate` runs as many as one likes.
 */
import { assert, describe, it } from "@effect/vitest"
import { checkerNames } from "../src/history/checkers.js"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { explore, nothing, plus, told } from "../src/simulation/explore.js"
import { type Mutation, mutations } from "../src/simulation/Mutation.js"
import { costly, options } from "../src/simulation/sampleTasks.js"
import { shrink } from "../src/simulation/shrink.js"
import * as Simulation from "../src/simulation/Simulation.js"
import { Effect, Fiber } from "effect"

const from = Number(process.env["SEED"] ?? 1)
const histories = 200
const costlyHistories = 100
/** Between two of these nothing else of this process happens. */
const atOnce = 20
/** So many are made once more in another process. */
const elsewhere = 5
/** Each mutation must be noticed in so many histories: the rarest, `dropPromises`, is in 8 of 400. */
const mutatedMax = 240
/** Some hundred times what one takes on a quiet machine, ms. */
const patienceMs = 120_000

const failureOf = (seed: number) => ({ seed, violations: [], plan: Simulation.planOf(seed, options) })

describe("simulation", () => {
  it.live(`keeps every promise in ${histories} histories from seed ${from} on`, () =>
    Effect.gen(function*() {
      let faults = 0
      for (let seed = from; seed < from + histories; seed += atOnce) {
        const { failure, ...explored } = explore({ from: seed, count: atOnce }, options)
        assert.isUndefined(failure, failure && told(failure))
        assert.strictEqual(explored.histories, atOnce)
        faults += explored.faults
        // The runner of the tests wants to be heard now and then.
        yield* Effect.sleep("1 millis")
      }
      assert.isAbove(faults, histories)
    }), patienceMs)

  it.live(`keeps them in ${costlyHistories} histories with runs that take several slots`, () =>
    Effect.gen(function*() {
      for (let seed = from; seed < from + costlyHistories; seed += atOnce) {
        const { failure } = explore({ from: seed, count: atOnce }, costly)
        assert.isUndefined(failure, failure && told(failure))
        yield* Effect.sleep("1 millis")
      }
    }), patienceMs)

  it("makes the same history of the same seed, to the last step", () => {
    const plan = Simulation.planOf(from, options)

    const [one, other] = [Simulation.run(plan, options), Simulation.run(plan, options)]

    assert.deepStrictEqual(one.history, other.history)
    assert.strictEqual(one.steps, other.steps)
    assert.notDeepEqual(one.history, Simulation.run(Simulation.planOf(from + 1, options), options).history)
  }, patienceMs)

  it("makes them in another thread of another process too", async () => {
    const program = new URL("../../../scripts/run.mjs", import.meta.url).pathname
    const given = ["simulate", "--from", String(from), "--count", String(elsewhere), "--threads", "1"]
    const { stdout } = await promisify(execFile)(process.execPath, [program, ...given], { timeout: patienceMs })
    const told: unknown = JSON.parse(stdout.trim().split("\n").at(-1)!)

    const { failure, simulatedMs, ...here } = explore({ from, count: elsewhere }, options)

    assert.isUndefined(failure)
    assert.deepInclude(told, { ...here, simulatedMs: Math.round(simulatedMs) })
  }, patienceMs)

  it("adds up, and keeps the failure of the lowest seed", () => {
    const one = { ...explore({ from, count: 1 }, options), failure: failureOf(7) }
    const other = { ...explore({ from: from + 1, count: 1 }, options), failure: failureOf(5) }
    const both = explore({ from, count: 2 }, options)

    assert.strictEqual(plus(one, other).failure?.seed, 5)
    assert.strictEqual(plus(other, one).failure?.seed, 5)
    assert.strictEqual(plus(nothing(), one).failure?.seed, 7)
    assert.deepStrictEqual({ ...plus(one, other), failure: undefined }, both)
  })

  it("keeps no history in memory", () => {
    const plan = Simulation.planOf(from, options)
    const { length } = Effect.runSync(Fiber.roots)

    Simulation.run(plan, options)

    assert.strictEqual(Effect.runSync(Fiber.roots).length, length)
  }, patienceMs)

  it("leaves the clocks and timers of this process as they were", () => {
    const before = [performance.now, Date.now, Math.random, setTimeout, setImmediate, queueMicrotask]

    Simulation.run(Simulation.planOf(from, options), options)

    assert.deepStrictEqual([performance.now, Date.now, Math.random, setTimeout, setImmediate, queueMicrotask], before)
  }, patienceMs)
})

describe("a bug put in on purpose", () => {
  for (const mutation of Object.keys(mutations) as Array<Mutation>) {
    const { checker, ...exposing } = mutations[mutation]
    it(`${mutation} is noticed by ${checker}`, () => {
      const mutated = { ...options, ...exposing, mutation }
      const broken = Array.from({ length: mutatedMax }, (_, at) => from + at).find((seed) =>
        Simulation.run(Simulation.planOf(seed, mutated), mutated).violations.some((each) => each.checker === checker)
      )

      assert.isDefined(broken, `not noticed in ${mutatedMax} histories`)
    }, patienceMs)
  }

  it("exists for every checker", () => {
    const caught = new Set(Object.values(mutations).map(({ checker }) => checker))

    assert.sameMembers([...caught], [...checkerNames])
  })

  it("is told with a smaller plan that breaks the same promise", () => {
    const mutated: Simulation.Options = { ...options, mutation: "forgetRunning" }
    const breaks = (plan: ReturnType<typeof Simulation.planOf>) =>
      Simulation.run(plan, mutated).violations.some(({ checker }) => checker === "liveness")
    const seed = Array.from({ length: mutatedMax }, (_, at) => from + at).find((each) =>
      breaks(Simulation.planOf(each, mutated))
    )
    const plan = Simulation.planOf(seed!, mutated)

    const least = shrink(plan, breaks, 60)

    assert.isTrue(breaks(least))
    assert.isBelow(least.runs.length + least.faults.length, plan.runs.length + plan.faults.length)
  }, patienceMs)
})
