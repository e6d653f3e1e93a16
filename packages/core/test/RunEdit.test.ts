import { assert, describe, it } from "@effect/vitest"
import type { Edit, Entry } from "@orrery/core/Entry"
import { InvalidRequest, PayloadTooLarge } from "@orrery/core/Errors"
import { changeOf, editProblem, type RunEdit } from "@orrery/core/RunEdit"
import type { StoredRun } from "@orrery/core/Journal"
import type { RunKeys } from "@orrery/core/RunKeys"
import { defaultPolicy } from "@orrery/core/RunRequest"
import { machineOf } from "./machineRig.js"

const problemOf = (edit: RunEdit) => editProblem(edit, 100)?.message ?? "accepted"

describe("an edit", () => {
  it("is refused with its field, limit and value", () => {
    const refusals: ReadonlyArray<readonly [RunEdit, string]> = [
      [{}, "edit must be of payload, priority, delay or at, got none of them"],
      [{ task: "t" }, "edit must be of payload, priority, delay or at, got none of them"],
      [{ version: 2, priority: 1 }, "version must be absent without a payload, got 2"],
      [{ version: 0, payload: "1" }, "version must be 1 to 9999, got 0"],
      [{ priority: 10 }, "priority must be an integer from 0 to 9, got 10"],
      [{ when: { _tag: "delay", ms: -1 } }, "delay must be 0 to 316224000000 ms, got -1"],
      [{ when: { _tag: "at", ms: Number.NaN } }, "at must be an instant after 1970, got NaN"],
      [{ payload: "\u0000" }, "payload must be JSON text, got a NUL character"],
      [{ payload: "x".repeat(101), task: "t" }, "payload of t is 101 bytes, the limit is 100"]
    ]
    for (const [edit, message] of refusals) assert.strictEqual(problemOf(edit), message)
    assert.strictEqual(problemOf({ payload: "1", version: 2, priority: 0, when: { _tag: "delay", ms: 0 } }), "accepted")
    assert.instanceOf(editProblem({ payload: "x".repeat(101) }, 100), PayloadTooLarge)
  })

  const now = 1_000_000.5
  const run = (fields: Partial<StoredRun> = {}) => ({
    task: "charge@2",
    policy: JSON.stringify(defaultPolicy),
    createdAt: 1_000_000,
    ...fields
  })

  it("keeps the version of the run where it says none, and its task in any case", () => {
    assert.deepStrictEqual(changeOf({ payload: "1" }, run(), now), { payload: "1", task: "charge@2" })
    assert.deepStrictEqual(changeOf({ payload: "1", version: 1 }, run(), now), { payload: "1", task: "charge" })
    assert.deepStrictEqual(changeOf({ payload: "1", version: 3, task: "charge" }, run(), now), {
      payload: "1",
      task: "charge@3"
    })
    assert.deepStrictEqual(changeOf({ priority: 1, task: "charge" }, run(), now), { priority: 1 })
    const other = changeOf({ priority: 1, task: "refund" }, run(), now)
    assert.instanceOf(other, InvalidRequest)
    assert.strictEqual(other.message, "task must be that of the run, charge, got refund")
    const long = changeOf({ payload: "1", version: 9_999 }, run({ task: "t".repeat(198) }), now)
    assert.match((long as InvalidRequest).message, /^version must be one that fits/)
  })

  it("is never early by a fraction, and not for a time at which the run is over", () => {
    const at = (when: NonNullable<RunEdit["when"]>, fields: Partial<StoredRun> = {}) =>
      changeOf({ when }, run(fields), now)
    assert.deepStrictEqual(at({ _tag: "delay", ms: 10 }), { scheduledAt: 1_000_011 })
    assert.deepStrictEqual(at({ _tag: "delay", ms: 0 }), { scheduledAt: 1_000_000 })
    assert.deepStrictEqual(at({ _tag: "at", ms: 5 }), { scheduledAt: 1_000_000 })
    assert.deepStrictEqual(at({ _tag: "at", ms: 1_000_100.25 }), { scheduledAt: 1_000_101 })
    const policy = JSON.stringify({ ...defaultPolicy, deadlineMs: 500 })
    assert.deepStrictEqual(at({ _tag: "delay", ms: 400 }, { policy }), { scheduledAt: 1_000_401 })
    const late = at({ _tag: "delay", ms: 500 }, { policy })
    assert.match(
      (late as InvalidRequest).message,
      /^delay must be before the deadline of the run, 1970-01-01T00:16:40.500Z/
    )
  })
})

describe("an edited run", () => {
  const edit = (machine: ReturnType<typeof machineOf>["machine"], run: StoredRun, change: Edit, now = 1) => {
    const entry = machine.edit(machine.find(run.id)!, change, now)
    assert(entry)
    return machine.out.writes.splice(0)
  }
  const commit = (machine: ReturnType<typeof machineOf>["machine"], writes: ReadonlyArray<Entry>) => {
    for (const entry of writes) {
      machine.changes.send(entry, [], [])
      machine.committed(entry)
    }
  }

  it("starts as it was told to, and not before that is durable", () => {
    const { admit, machine, start } = machineOf()
    const [first, second, third] = [admit(), admit(), admit()]

    const writes = [
      ...edit(machine, third, { payload: "3", priority: 0 }),
      ...edit(machine, first, { scheduledAt: 50 })
    ]
    assert.deepStrictEqual(start(2, 3).map(({ runId }) => runId), [second.id])
    commit(machine, writes)
    assert.deepStrictEqual(start(3).map(({ payload, runId }) => [runId, payload]), [[third.id, "3"]])
    assert.deepStrictEqual(start(49), [])
    assert.deepStrictEqual(start(50).map(({ runId }) => runId), [first.id])
  })

  it("goes to the workers of the version of its payload", () => {
    const { admit, machine, start } = machineOf()
    const run = admit({ tenant: "acme" })

    commit(machine, edit(machine, run, { payload: "2", task: "a@2" }))

    assert.strictEqual(machine.lines.wants(new Set(["a"]), 1), 0)
    assert.strictEqual(machine.lines.wants(new Set(["a@2"]), 1), 1)
    assert.deepStrictEqual(start(2).map(({ payload, task }) => [payload, task]), [["2", "a@2"]])
  })

  it("asks as many slots of the workers of that version", () => {
    const { admit, machine } = machineOf()
    const run = admit(null, { policy: JSON.stringify({ ...defaultPolicy, slots: 3 }) })
    machine.tick(1)
    machine.dispatch(1, { take: () => undefined })

    commit(machine, edit(machine, run, { payload: "2", task: "a@2" }))

    const asked: Array<readonly [string, number | undefined]> = []
    machine.tick(2)
    machine.dispatch(2, { take: (task, _, need) => void asked.push([task, need?.slots]) })
    assert.deepStrictEqual(asked, [["a@2", 3]])
    assert.isTrue(machine.lines.wants(new Set(["a@2"]), 4) > 0)
  })

  it("keeps its place among those of its ordering key, and those behind it wait", () => {
    const { admit, end, machine, start } = machineOf()
    const order: RunKeys = { order: "o" }
    const [a, b, c] = [admit(order), admit(order), admit(order)]
    const [running] = start(1)
    assert.strictEqual(running!.runId, a.id)

    const writes = edit(machine, b, { priority: 9, payload: "b" })
    end(running!, 2)
    assert.deepStrictEqual(start(3), [], "the one behind has overtaken it")
    commit(machine, writes)
    const [next] = start(4)
    assert.deepStrictEqual([next!.runId, next!.payload], [b.id, "b"])
    end(next!, 5)
    assert.deepStrictEqual(start(6).map(({ runId }) => runId), [c.id])
  })

  it("is waited for by those behind it, also where several are edited and written in any order", () => {
    const { admit, end, machine, start } = machineOf()
    const order: RunKeys = { order: "o" }
    const [a, b] = [admit(order), admit(order)]

    const later = edit(machine, b, { payload: "b" })
    const first = edit(machine, a, { scheduledAt: 20 })
    commit(machine, later)
    assert.deepStrictEqual(start(5), [])
    commit(machine, first)
    assert.deepStrictEqual(start(19), [], "the time of the head holds for all")
    const [head] = start(20)
    assert.strictEqual(head!.runId, a.id)
    end(head!, 21)
    assert.deepStrictEqual(start(22).map(({ runId }) => runId), [b.id])
  })

  it("has its time in line counted from its new time", () => {
    const { admit, machine, start } = machineOf()
    const run = admit(null, { policy: JSON.stringify({ ...defaultPolicy, queueTtlMs: 100 }) })

    commit(machine, edit(machine, run, { scheduledAt: 50 }, 10))

    start(149, 0)
    assert.strictEqual(machine.find(run.id)?.place, "ready")
    machine.tick(150)
    assert.strictEqual(machine.find(run.id)?.end?.state, "expired")
  })

  it("is not what an owner before has started: that is stale", () => {
    const began = { partitionId: 1, attempt: 1, lease: 2 ** 30 + 7 }
    const plain = machineOf(undefined, [], 2)
    const known = plain.admit()
    assert.strictEqual(plain.machine.announce("w", [{ ...began, runId: known.id }]).adopted, 1)

    const { admit, machine, start } = machineOf(undefined, [], 2)
    const run = admit()
    commit(machine, edit(machine, run, { payload: "2" }))

    const { stale } = machine.announce("w", [{ ...began, runId: run.id }])
    assert.deepStrictEqual(stale.map(({ runId }) => runId), [run.id])
    assert.deepStrictEqual(start(2).map(({ payload }) => payload), ["2"])
    // And so it is for the owner after this one.
    const lease = machine.find(run.id)!.lease
    assert.isAbove(lease, 2 * 2 ** 30)
  })

  it("is refused once it runs", () => {
    const { admit, machine, start } = machineOf()
    const run = admit()
    start(1)

    assert.isUndefined(machine.edit(machine.find(run.id)!, { priority: 1 }, 2))
    assert.strictEqual(machine.find(run.id)!.priority, 5)
  })

  it("takes no room at its key while it is in the store only", () => {
    const { admit, fail, machine, start } = machineOf(undefined, [], 1, 1)
    const limits: RunKeys = { limits: [{ name: "l", key: "k", limit: 1, onFull: "cancelNewest" }] }
    for (const scheduledAt of [10, 11, 12]) admit(null, { state: "scheduled", scheduledAt })
    const run = admit(limits)
    const [attempt] = start(1)
    fail(attempt!, 2)
    assert.isUndefined(machine.find(run.id), "it waits beyond what is in memory")

    const next = admit(limits)

    assert.strictEqual(machine.find(next.id)?.place, "ready")
  })
})
