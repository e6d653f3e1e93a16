/** Runs that take several slots, and those that fill a range of a schedule, in the machine of a partition. */
import { assert, describe, it } from "@effect/vitest"
import type { WorkerPool } from "@orrery/core/Entry"
import type { Need } from "@orrery/core/Need"
import { noRules } from "@orrery/core/QueueSettings"
import { backfillLimit, type RunKeys } from "@orrery/core/RunKeys"
import { defaultPolicy } from "@orrery/core/RunRequest"
import * as TaskKeys from "@orrery/core/TaskKeys"
import * as TaskPolicy from "@orrery/core/TaskPolicy"
import { explain } from "@orrery/core/explain"
import { machineOf } from "./machineRig.js"

const costing = (slots: number) => ({ policy: JSON.stringify({ ...defaultPolicy, slots }) })
const backfill: RunKeys = { limits: [backfillLimit] }

/** One worker that has so many. */
const poolOf = (slots: number) => {
  const asked: Array<Need | undefined> = []
  let left = slots
  const pool: WorkerPool = {
    take: (_task, _isSuspect, need) => {
      asked.push(need)
      const taken = need?.slots ?? 1
      if (taken > left) return undefined
      left -= taken
      return "w"
    }
  }
  return { pool, asked, free: (workers: ReadonlyArray<string>) => void (left += workers.length) }
}

describe("a task that takes several slots", () => {
  it("says so in its policy, and one that takes one says nothing", () => {
    assert.strictEqual(TaskPolicy.make({ slots: 1 }).text, TaskPolicy.make({}).text)
    assert.strictEqual((JSON.parse(TaskPolicy.make({ slots: 3 }).text) as { slots: number }).slots, 3)
    for (const slots of [0, 1.5, -1, 1_001, Number.NaN]) {
      assert.throws(() => TaskPolicy.make({ slots }), /slots must be an integer from 1 to 1000/)
    }
  })

  it("is given them together, gives them back together, and keeps none of another task back", () => {
    const { admit, commit, machine } = machineOf()
    const { asked, free, pool } = poolOf(5)
    const other = { task: "b" }
    const runs = [admit(null, costing(3)), admit(null, costing(3)), admit(null, other), admit(null, other)]
    machine.dispatch(1, pool)
    commit()

    const begun = machine.out.assignments.splice(0).map(({ assignment }) => assignment)
    assert.deepStrictEqual(begun.map(({ runId, slots }) => [runId, slots]), [
      [runs[0]!.id, 3],
      [runs[2]!.id, undefined],
      [runs[3]!.id, undefined]
    ])
    assert.strictEqual(machine.heldBy("w"), 5)
    assert.deepStrictEqual(asked.map((need) => need?.slots), [3, 3, undefined, undefined])
    assert.strictEqual(machine.wants(new Set(["a"])), 3)
    assert.strictEqual(machine.wants(new Set(["a"]), 2), 0, "a worker of two slots cannot help")

    machine.outcome({ ...begun[0]!, partitionId: 1 }, { _tag: "success", result: "1" }, 2)
    commit()
    assert.deepStrictEqual(machine.out.freed, ["w", "w", "w"])
    assert.strictEqual(machine.heldBy("w"), 2)
    free(machine.out.freed.splice(0))
    machine.dispatch(3, pool)
    assert.strictEqual(machine.heldBy("w"), 5)
  })

  it("is counted by a new owner as it was by the one before", () => {
    const run = machineOf().admit(null, costing(4))
    const { machine } = machineOf(undefined, [{
      ...run,
      state: "running",
      attempt: 1,
      lease: 1,
      worker: "w",
      startedAt: 0
    }], 2)

    assert.strictEqual(machine.heldBy("w"), 4)
    machine.tick(10_000)
    assert.strictEqual(machine.heldBy("w"), 0)
    assert.lengthOf(machine.out.freed, 4)
  })

  it("is told apart when no worker is large enough", () => {
    const { admit, machine } = machineOf()
    const run = admit(null, costing(5))
    const reasonOf = (most: number | undefined) =>
      explain(machine, run.id, 1, { slotsFor: () => most, backfillsOf: () => ({ most: 1, taken: 0 }) })!.reasons[0]

    assert.deepStrictEqual(reasonOf(4), { _tag: "NoWorker", task: "a", slots: 5, most: 4 })
    assert.deepStrictEqual(reasonOf(undefined), { _tag: "NoWorker", task: "a" })
    assert.strictEqual(reasonOf(5)._tag, "Behind")
  })
})

describe("runs of a backfill", () => {
  it("have half of the queue's concurrency, and the others all that is left", () => {
    const { admit, commit, machine } = machineOf({ ...noRules, concurrency: 5 })
    const { pool } = poolOf(100)
    const filled = Array.from({ length: 6 }, () => admit(backfill))
    const others = Array.from({ length: 2 }, () => admit())
    machine.dispatch(1, pool)
    commit()

    const begun = machine.out.assignments.splice(0).map(({ assignment: { runId } }) => runId)
    assert.deepStrictEqual(begun, [filled[0]!.id, filled[1]!.id, others[0]!.id, others[1]!.id])
    assert.isTrue(machine.lines.holdsBackfills)
    assert.strictEqual(machine.wants(new Set(["a"])), 0, "it wants for no slot")
    const [reason] = explain(machine, filled[2]!.id, 2, {
      slotsFor: () => 100,
      backfillsOf: () => ({ most: 50, taken: 2 })
    })!.reasons
    assert.deepStrictEqual(reason, {
      _tag: "Blocked",
      limit: { name: "orrery.backfill", key: "*" },
      most: 2,
      running: 2,
      holders: [filled[0]!.id, filled[1]!.id]
    })
  })

  it("are told to a worker once their start is durable, and counted by a new owner", () => {
    const { admit, commit, machine } = machineOf()
    const { pool } = poolOf(100)
    const run = admit(backfill)
    machine.dispatch(1, pool)
    assert.isEmpty(machine.out.assignments)
    commit()
    assert.lengthOf(machine.out.assignments, 1)

    const rows = [1, 2].map(() => (
      { ...admit(backfill), state: "running" as const, attempt: 1, lease: 1, worker: "w", startedAt: 0 }
    ))
    const next = machineOf({ ...noRules, concurrency: 4 }, rows, 2)
    next.admit(backfill)
    next.machine.dispatch(1, poolOf(100).pool)
    assert.strictEqual(next.machine.leases.backfills, 2, "no third beside those that run")
    assert.isDefined(run)
  })

  it("have a name of their own among the limits, which no task may use", () => {
    assert.throws(() => TaskKeys.make("t", { concurrency: { name: backfillLimit.name, limit: 3 } }), /orrery.backfill/)
  })
})
