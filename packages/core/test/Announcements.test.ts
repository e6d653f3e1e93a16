/** A worker tells a new owner of a partition which attempts it holds. */
import { assert, describe, it } from "@effect/vitest"
import { numbersPerEpoch } from "@orrery/core/Numbers"
import { noRules } from "@orrery/core/QueueSettings"
import { machineOf } from "./machineRig.js"

const epoch = 3
const ofFormer = (epoch - 1) * numbersPerEpoch + 5

describe("an announcement", () => {
  it("keeps what is running, and gives up the others", () => {
    const before = machineOf()
    const change = { state: "running", attempt: 1, worker: "w" } as const
    const kept = before.admit(null, { ...change, lease: 5 })
    const lost = before.admit(null, { ...change, lease: 6 })
    const { machine } = machineOf(noRules, [kept, lost], epoch)
    const ref = { partitionId: 1, runId: kept.id, attempt: 1, lease: 5 }

    const { adopted, stale } = machine.announce("w", [ref, { ...ref, lease: 4 }])

    assert.strictEqual(adopted, 1)
    assert.deepStrictEqual(stale, [{ ...ref, lease: 4 }])
    assert.strictEqual(machine.heldBy("w"), 1)
    assert.isTrue(machine.holds(ref))
  })

  it("takes back what the one before told and it does not, if an earlier owner has assigned it", () => {
    const { admit, commit, machine, start } = machineOf(noRules, [], epoch)
    const begunUnnoted = { partitionId: 1, runId: admit().id, attempt: 1, lease: ofFormer }

    const first = machine.announce("w", [begunUnnoted])
    const heldAfterFirst = machine.heldBy("w")
    const again = machine.announce("w", [])
    commit()

    assert.deepStrictEqual([first.adopted, heldAfterFirst, again.adopted], [1, 1, 0])
    // Its attempt counts as none.
    assert.include(start(1)[0], { runId: begunUnnoted.runId, attempt: 1 })
  })

  it("gives up what an owner before the former began and could not note: the former may have begun it again", () => {
    const { admit, machine } = machineOf(noRules, [], epoch)
    const { id } = admit()
    const first = { partitionId: 1, runId: id, attempt: 1, lease: ofFormer - numbersPerEpoch }
    const second = { ...first, lease: ofFormer }

    const answers = [machine.announce("slow", [first]), machine.announce("w", [second])]

    assert.deepStrictEqual(answers.map(({ stale }) => stale), [[first], []])
    assert.isTrue(machine.holds(second))
  })

  it("leaves a start that is not durable yet: its worker has not been told of it", () => {
    const { admit, commit, machine } = machineOf({ ...noRules, concurrency: 2 }, [], epoch)
    const { id } = admit()
    machine.dispatch(1, { take: () => "w" })
    const toldBefore = machine.out.assignments.length
    machine.doubt("w", Infinity)

    const { takenBack } = machine.announce("w", [])
    commit()

    assert.deepStrictEqual([toldBefore, takenBack], [0, 0])
    assert.deepStrictEqual(machine.out.assignments.map(({ assignment }) => assignment.runId), [id])
  })

  it("leaves what this owner has assigned since: it may still be on its way", () => {
    const { admit, machine, start } = machineOf(noRules, [], epoch)
    admit()
    const [assigned] = start(1)

    machine.announce("w", [])

    assert.isTrue(machine.holds({ ...assigned!, partitionId: 1 }))
  })
})
