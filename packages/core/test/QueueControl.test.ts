import { assert, describe, it } from "@effect/vitest"
import type { RunFinish } from "@orrery/core/Journal"
import { checkCall, dividedProblem, noRules, type QueueRules, rulesOf } from "@orrery/core/QueueSettings"
import type { LimiterTerms } from "@orrery/core/LimiterTerms"
import type { RunKeys } from "@orrery/core/RunKeys"
import type { Backlog } from "@orrery/core/RunRequest"
import { machineOf } from "./machineRig.js"

const pause = { by: "ann", why: "leak", at: 0 }

describe("settings of a queue", () => {
  it("hold everything back while it is paused, and nothing that runs", () => {
    const { admit, end, machine, start } = machineOf()
    admit()
    const [running] = start(0)
    machine.configure({ ...noRules, paused: pause }, 1)
    admit()

    assert.deepStrictEqual(start(2), [])
    assert.isFalse(machine.wants(new Set(["a"])) > 0, "it waits for no worker")
    assert.strictEqual(machine.nextTick(), Infinity, "and for no time")
    end(running!, 3)
    machine.configure(noRules, 4)

    assert.strictEqual(start(4).length, 1)
  })

  it("let a limit below what runs end nothing, and start nothing until there is room", () => {
    const { admit, end, machine, start } = machineOf()
    for (let n = 0; n < 6; n++) admit()
    const running = start(0, 4)
    machine.configure({ ...noRules, concurrency: 2 }, 1)

    assert.deepStrictEqual(machine.out.cancels, [])
    for (const one of running.slice(0, 2)) {
      end(one, 2)
      assert.deepStrictEqual(start(2), [])
    }
    end(running[2]!, 3)
    assert.strictEqual(start(3).length, 1)
  })

  it("count what ran under the owner before", () => {
    const before = { state: "running", attempt: 1, lease: 5, worker: "w", startedAt: 0 } as const
    const { admit, machine, start } = machineOf({ ...noRules, concurrency: 2 }, [machineOf().admit(null, before)], 2)
    admit()
    admit()

    assert.strictEqual(start(0).length, 1)
    assert.strictEqual(machine.runningCount, 2)
  })

  it("start no more than the rate allows, and a period after a take-over at the earliest", () => {
    const rules: QueueRules = { ...noRules, rate: { limit: 2, perMs: 100 } }
    const { admit, machine, start } = machineOf(rules, [], 2)
    for (let n = 0; n < 5; n++) admit()

    assert.strictEqual(start(50).length, 0)
    assert.strictEqual(machine.nextTick(), 100)
    assert.strictEqual(start(100).length, 2)
    assert.strictEqual(start(199).length, 0)
    assert.strictEqual(start(200).length, 2)
    machine.configure({ ...noRules, rate: { limit: 3, perMs: 100 } }, 210)
    assert.strictEqual(start(210).length, 1, "what has started before counts")
  })

  it("hold one key back: of fairness, of ordering, of a limit", () => {
    const { admit, machine, start } = machineOf()
    const keys: ReadonlyArray<RunKeys> = [
      { tenant: "acme" },
      { order: "o" },
      { limits: [{ name: "api", key: "x", limit: 1 }] },
      { rates: [{ name: "mail", key: "x", limit: 9, perMs: 10 }] }
    ]
    const paused = [
      { kind: "fairness", key: "acme" },
      { kind: "ordering", key: "o" },
      { kind: "concurrency", name: "api", key: "x" },
      { kind: "concurrency", name: "mail", key: "x" }
    ] as const
    machine.configure({ ...noRules, pausedKeys: paused.slice(0, 2).map((of) => ({ of, pause })) }, 0)
    const ids = keys.map((each) => admit(each).id)
    machine.configure({ ...noRules, pausedKeys: paused.map((of) => ({ of, pause })) }, 0)
    const others = [admit().id, admit({ tenant: "o" }).id, admit({ limits: [{ name: "b", key: "x", limit: 1 }] }).id]

    assert.sameMembers(start(1).map(({ runId }) => runId), others)
    for (const [at, id] of ids.entries()) {
      machine.configure({ ...noRules, pausedKeys: paused.slice(at + 1).map((of) => ({ of, pause })) }, 2)
      assert.deepStrictEqual(start(2).map(({ runId }) => runId), [id])
    }
  })

  it("go before what runs say of a limit or a rate: all its keys, or one", () => {
    const { admit, machine, start } = machineOf()
    const of = (key: string): RunKeys => ({ limits: [{ name: "api", key, limit: 1 }] })
    machine.configure({ ...noRules, limits: [{ name: "api", limit: 2 }] }, 0)
    for (let n = 0; n < 4; n++) for (const key of ["x", "y"]) admit(of(key))

    assert.strictEqual(start(0).length, 4)
    machine.configure({ ...noRules, limits: [{ name: "api", limit: 2 }, { name: "api", key: "y", limit: 3 }] }, 1)
    assert.strictEqual(start(1).length, 1)
    machine.configure(noRules, 2)
    assert.strictEqual(start(2).length, 0)

    const rated: RunKeys = { rates: [{ name: "mail", key: "z", limit: 1, perMs: 100, cost: 1 }] }
    machine.configure({ ...noRules, rates: [{ name: "mail", limit: 3, perMs: 50 }] }, 3)
    for (let n = 0; n < 8; n++) admit(rated)
    assert.strictEqual(start(3).length, 3)
    assert.strictEqual(start(53).length, 3)
    machine.configure(noRules, 54)
    assert.strictEqual(start(110).length, 0)
    assert.strictEqual(start(153).length, 1)
  })

  it("lower a rate below the cost of its runs: they start one at a time", () => {
    const { admit, machine, start } = machineOf()
    machine.configure({ ...noRules, rates: [{ name: "mail", limit: 2, perMs: 50 }] }, 0)
    for (let n = 0; n < 2; n++) admit({ rates: [{ name: "mail", key: "z", limit: 9, perMs: 100, cost: 5 }] })

    assert.strictEqual(start(0).length, 1)
    assert.strictEqual(start(50).length, 1)
  })

  it("divide limits of the whole queue among its partitions", () => {
    const settings = { pausedKeys: [], override: { concurrency: 7, rate: { limit: 4, perMs: 10 } } }
    const shares = [0, 1, 2].map((partition) => rulesOf(settings, partition, 3))

    assert.deepStrictEqual(shares.map(({ concurrency }) => concurrency), [3, 2, 2])
    assert.deepStrictEqual(shares.map(({ rate }) => rate!.limit), [2, 1, 1])
  })

  it("do not divide limits that span queues; what people say replaces them, and none takes them away", () => {
    const rate = (name: string, perMs = 1_000): LimiterTerms => ({ kind: "rate", name, limit: 1, perMs })
    const declared = { version: 1, limits: { limiters: [rate("a"), rate("b")] } }
    const said = (limiters?: ReadonlyArray<LimiterTerms>) =>
      rulesOf({ pausedKeys: [], declared, override: limiters === undefined ? {} : { limiters } }, 1, 3).limiters
    const call = (limiters: ReadonlyArray<LimiterTerms>) =>
      checkCall({ _tag: "setLimits", namespace: "default", queue: "q", by: "ann", limits: { limiters } })?.message

    assert.deepStrictEqual(said(), [rate("a"), rate("b")])
    assert.deepStrictEqual(said([rate("c")]), [rate("c")])
    assert.isUndefined(said([]))
    assert.isUndefined(call([rate("a"), rate("b")]))
    assert.match(call([rate("a"), rate("a")])!, /limiters.* another name/)
    assert.match(call(["a", "b", "c", "d", "e"].map(rate))!, /limiters/)
    assert.match(call([rate("a", 120_000)])!, /60000 ms/)
  })

  it("say how long runs are kept that end from then on, by how they end", () => {
    const { admit, machine } = machineOf()
    const ended = (at: number) => {
      const { id } = admit()
      machine.cancel(id, at)
      const finishes: Array<RunFinish> = []
      for (const entry of machine.out.writes.splice(0)) {
        machine.changes.send(entry, [], finishes)
        machine.committed(entry)
      }
      return finishes.map(({ keptDays, state }) => `${state} ${keptDays}`)
    }

    assert.deepStrictEqual(ended(0), ["cancelled 30"])
    machine.configure({ ...noRules, retention: { cancelled: "1 day", failed: "forever" } }, 1)
    assert.deepStrictEqual(ended(1), ["cancelled 1"])
    machine.configure({ ...noRules, retention: { failed: "forever" } }, 2)
    assert.deepStrictEqual(ended(2), ["cancelled 30"])
  })

  it("divide a bound of the backlog among the partitions, and go before what tasks say", () => {
    const settings = {
      pausedKeys: [],
      declared: { version: 1, limits: { backlog: { maxDepth: 50, maxDepthPerTenant: 10 } } },
      override: {}
    }
    const shares = [0, 1, 2].map((partition) => rulesOf(settings, partition, 3).backlog)
    assert.deepStrictEqual(shares, [
      { maxDepth: 17, maxDepthPerTenant: 4 },
      { maxDepth: 17, maxDepthPerTenant: 3 },
      { maxDepth: 16, maxDepthPerTenant: 3 }
    ])
    const said = { ...settings, override: { backlog: { maxDepth: 7 } } }
    assert.deepStrictEqual(rulesOf(said, 0, 1).backlog, { maxDepth: 7 })

    const call = (backlog: Backlog) =>
      ({ _tag: "setLimits", namespace: "default", queue: "q", by: "ann", limits: { backlog } }) as const
    assert.match(dividedProblem(call({ maxDepth: 2 }), 3)!.message, /backlog.maxDepth must be at least 3/)
    assert.isUndefined(checkCall(call({ maxDepth: 2, maxDepthPerTenant: 2 })))
    assert.match(checkCall(call({ maxDepth: 2, maxDepthPerTenant: 3 }))!.message, /at most backlog.maxDepth, 2/)
    assert.match(checkCall(call({ maxDepth: 100_001 }))!.message, /maxDepth/)
  })
})
