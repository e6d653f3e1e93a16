import { assert, describe, it } from "@effect/vitest"
import { explain } from "../src/explain.js"
import type { StoredRun } from "../src/Journal.js"
import type { LimiterTerms } from "../src/LimiterTerms.js"
import { noRules } from "../src/QueueSettings.js"
import { unsafeMakeRunId } from "../src/RunId.js"
import { defaultPolicy } from "../src/RunRequest.js"
import type { Borrower, Lent } from "../src/StartLimits.js"
import { machineOf } from "./machineRig.js"

/** One lender for all limits, which the test fills. */
const makeLender = () => {
  const state = { room: 0, taken: 0, wanted: 0, adopted: 0, ended: 0, lost: 0, closed: 0, woken: 0, isLate: false }
  const borrowers = new Map<string, Borrower>()
  const lent: Lent = {
    room: () => state.room,
    take: () => {
      state.room -= 1
      state.taken += 1
      return 7
    },
    isLate: () => state.isLate,
    want: () => void (state.wanted += 1),
    ended: () => {
      state.ended += 1
      state.room += 1
    },
    adopt: () => void (state.adopted += 1),
    lost: () => state.lost,
    obstacle: () => "limit",
    close: () => void (state.closed += 1),
    abandon: () => void (state.closed += 1)
  }
  return {
    state,
    costs: () => [...borrowers.values()].map(({ cost }) => cost),
    fill: (room: number) => {
      state.room += room
      for (const { filled } of borrowers.values()) filled()
    },
    lender: {
      partition: "p",
      wake: () => void (state.woken += 1),
      limits: {
        lend: (terms: LimiterTerms, borrower: Borrower) => {
          borrowers.set(`${terms.name} ${borrower.cost}`, borrower)
          return lent
        }
      }
    }
  }
}

const rate: LimiterTerms = { kind: "rate", name: "partner", limit: 10, perMs: 1_000 }
const permit: LimiterTerms = { kind: "permit", name: "gpu", limit: 2, leaseMs: 10_000 }
const limited = (terms: LimiterTerms, change: Partial<StoredRun> = {}): Partial<StoredRun> => (
  { policy: JSON.stringify({ ...defaultPolicy, limiters: [terms] }), ...change }
)

const rig = (running: ReadonlyArray<StoredRun> = [], epoch = 1) => {
  const lending = makeLender()
  return { ...lending, ...machineOf(undefined, running, epoch, 100, lending.lender) }
}

describe("a limit that spans queues", () => {
  it("lets start what it lends room for, and no more until it is filled", () => {
    const { admit, fill, start, state } = rig()
    for (let n = 0; n < 5; n++) admit(null, limited(rate))

    assert.strictEqual(start(1).length, 0)
    assert.isAbove(state.wanted, 0)
    fill(2)
    assert.strictEqual(start(2).length, 2)
    assert.strictEqual(start(3).length, 0)
    fill(10)
    assert.strictEqual(start(4).length, 3)
  })

  it("asks again where another took what was there", () => {
    const { admit, fill, start, state } = rig()
    admit(null, limited(rate))
    start(1)
    const before = state.wanted
    fill(0)
    start(2)

    assert.isAbove(state.wanted, before)
  })

  it("holds up its own runs only, and asks for a slot in which they begin at once", () => {
    const { admit, commit, fill, machine } = rig()
    admit(null, limited(rate, { task: "limited" }))
    admit(null, { task: "free" })
    const asked: Array<string> = []
    const dispatch = (now: number) => {
      machine.tick(now)
      machine.dispatch(now, {
        take: (task, isPrompt) => {
          asked.push(`${task} ${isPrompt}`)
          return "w"
        }
      })
      commit()
    }
    dispatch(1)
    fill(1)
    dispatch(2)

    assert.deepStrictEqual(asked, ["free false", "limited true"])
  })

  it("tells the worker of a start under a rate at once, and of one with a permit when its mark is durable", () => {
    for (const [terms, told] of [[rate, 1], [permit, 0]] as const) {
      const { admit, fill, machine } = rig()
      admit(null, limited(terms))
      machine.tick(1)
      machine.dispatch(1, { take: () => "w" })
      fill(1)
      machine.tick(2)
      machine.dispatch(2, { take: () => "w" })

      assert.strictEqual(machine.out.assignments.length, told)
    }
  })

  it("takes a start back whose tokens have died before its worker could be told", () => {
    const { admit, commit, fill, machine, state } = rig()
    // Another limit makes it wait for its mark.
    const run = admit({ limits: [{ name: "k", key: "x", limit: 1 }] }, limited(rate))
    machine.tick(1)
    machine.dispatch(1, { take: () => "w" })
    fill(1)
    machine.tick(2)
    machine.dispatch(2, { take: () => "w" })
    state.isLate = true
    commit()
    commit()

    assert.strictEqual(machine.out.assignments.length, 0)
    assert.strictEqual(machine.find(run.id)?.place, "ready")
    assert.strictEqual(machine.find(run.id)?.attempt, 0)
    state.isLate = false
    fill(1)
    machine.tick(3)
    machine.dispatch(3, { take: () => "w" })
    commit()
    assert.strictEqual(machine.out.assignments.length, 1)
  })

  it("costs what the run says", () => {
    const { admit, costs, start } = rig()
    admit({ costs: { partner: 3 } }, limited({ ...rate, cost: 2 }))
    admit(null, limited({ ...rate, cost: 2 }))
    start(1)

    assert.sameMembers([...costs()], [3, 2])
  })

  it("counts attempts that run under the owner before, and permits until they end", () => {
    const seq = 2 ** 30
    const before: StoredRun = {
      ...{ id: unsafeMakeRunId(1), seq, task: "a", priority: 5, createdAt: 0, payload: "{}", keys: null },
      ...{ policy: limited(permit).policy!, state: "running", scheduledAt: 0, orderKey: seq, attempt: 1, crashes: 0 },
      ...{ lease: seq + 1, worker: "w", failure: null, startedAt: 0 }
    }
    const { admit, end, fill, machine, start, state } = rig([before], 2)
    assert.strictEqual(state.adopted, 1)
    admit(null, limited(permit))
    start(1)
    fill(1)
    const [own] = start(2)
    end(own!, 3)
    machine.announce("w", [{ runId: before.id, partitionId: 1, attempt: 1, lease: before.lease }])
    machine.outcome({ runId: before.id, partitionId: 1, attempt: 1, lease: before.lease }, {
      _tag: "success",
      result: "1"
    }, 4)

    assert.deepStrictEqual([state.taken, state.ended], [1, 2])
  })

  it("stops as many attempts as have lost their permits, and they go back in line", () => {
    const { admit, commit, fill, machine, start, state } = rig()
    for (let n = 0; n < 3; n++) admit(null, limited(permit))
    start(1)
    fill(3)
    const begun = start(2)
    state.lost = 2
    fill(0)
    machine.tick(3)
    const stopped = machine.out.cancels.splice(0).map(({ attempt }) => attempt)

    assert.strictEqual(begun.length, 3)
    assert.deepStrictEqual(stopped.map(({ runId }) => runId), [begun[2]!.runId, begun[1]!.runId])
    machine.outcome(stopped[0]!, { _tag: "cancelled" }, 4)
    commit()
    const back = machine.find(stopped[0]!.runId)
    assert.deepStrictEqual([back?.state, back?.attempt], ["ready", 0])
  })

  it("said of a queue holds back its runs of all tasks, counts once where a task says it too, and can be taken back", () => {
    const { admit, fill, machine, start, state } = rig()
    admit(null, { task: "plain" })
    admit(null, limited(rate, { task: "limited" }))
    admit(null, limited(permit, { task: "permitted" }))
    machine.configure({ ...noRules, limiters: [rate] }, 0)

    assert.strictEqual(start(1).length, 0)
    fill(1)
    assert.deepStrictEqual(start(2).map(({ task }) => task), ["plain"])
    fill(1)
    assert.deepStrictEqual(start(3).map(({ task }) => task), ["limited"])
    assert.strictEqual(state.taken, 2)
    fill(2)
    assert.deepStrictEqual(start(4).map(({ task }) => task), ["permitted"])
    assert.strictEqual(state.taken, 4, "one of the queue, one of its task")
    const closed = state.closed
    const waits = admit(null, { task: "plain" })
    start(5)
    assert.deepInclude(
      explain(machine, waits.id, 5, { slotsFor: () => 1, backfillsOf: () => ({ most: 1, taken: 0 }) })?.reasons[0],
      {
        _tag: "RateLimited",
        limit: { name: "partner", key: "*" }
      }
    )
    machine.configure(noRules, 6)
    assert.strictEqual(start(6).length, 1)
    assert.isAbove(state.closed, closed, "what was lent goes back")
    assert.strictEqual(state.taken, 4)
  })

  it("said of a queue counts attempts that run under the owner before", () => {
    const before = { state: "running", attempt: 1, lease: 5, worker: "w", startedAt: 0 } as const
    const { lender, state } = makeLender()
    const { admit, machine, start } = machineOf(
      { ...noRules, limiters: [permit] },
      [machineOf().admit(null, before)],
      2,
      100,
      lender
    )
    admit()

    assert.deepStrictEqual([state.adopted, start(1).length, machine.runningCount], [1, 0, 1])
  })

  it("is what explains why a run waits", () => {
    const { admit, fill, machine, start } = rig()
    const first = admit(null, limited(permit))
    start(1)
    fill(1)
    start(2)
    const second = admit(null, limited(permit))
    start(3)
    const third = admit(null, limited(rate, { task: "b" }))
    start(4)

    const workers = { slotsFor: () => 1, backfillsOf: () => ({ most: 1, taken: 0 }) }
    const reason = (id: typeof first.id) => explain(machine, id, 5, workers)?.reasons[0]
    assert.deepStrictEqual(reason(second.id), {
      _tag: "Blocked",
      limit: { name: "gpu", key: "*" },
      most: 2,
      running: 1,
      holders: [first.id],
      spans: "used"
    })
    assert.deepStrictEqual(reason(third.id), {
      _tag: "RateLimited",
      limit: { name: "partner", key: "*" },
      until: null,
      spans: "used"
    })
  })

  it("is borrowed for as long as there are runs that need it", () => {
    const { admit, end, fill, machine, start, state } = rig()
    admit(null, limited(permit))
    start(1)
    fill(1)
    const [only] = start(2)
    assert.strictEqual(state.closed, 0)
    end(only!, 3)
    machine.tick(4)

    assert.strictEqual(state.closed, 1)
  })
})
