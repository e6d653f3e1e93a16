/** What the reconciler must notice: each test forgets a run in another way. That it raises no false alarm is held by the model test. */
import { assert, describe, it } from "@effect/vitest"
import type { Entry } from "@orrery/core/Entry"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { expected, missing, reconcile } from "@orrery/core/Reconciliation"
import { unsafeMakeRunId } from "@orrery/core/RunId"

const nothing = { waiting: [], sent: [] }

const makeMachine = () => {
  const machine = new QueueMachine(
    { partitionId: 1, epoch: 1, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 10, bytesMax: 1e6 } },
    { now: 0, lines: [], hasTimers: false, running: [], adoptUntil: 0 }
  )
  const add = (scheduledAt = 0): Entry => {
    const id = unsafeMakeRunId(1_700_000_000_000)
    machine.admitNew({
      id,
      seq: machine.numbers.next(),
      task: "t",
      priority: 0,
      createdAt: 0,
      payload: "1",
      policy: "",
      keys: null,
      state: scheduledAt === 0 ? "ready" : "scheduled",
      scheduledAt,
      orderKey: scheduledAt,
      attempt: 0,
      crashes: 0,
      lease: 0,
      worker: null,
      failure: null,
      startedAt: null
    })
    return machine.find(id)!
  }
  const start = () => {
    let free = 1
    machine.dispatch(0, { take: () => free-- > 0 ? "w" : undefined })
    const writes = machine.out.writes.splice(0)
    for (const entry of writes) {
      machine.changes.send(entry, [], [])
      machine.committed(entry)
    }
    return writes[0]!
  }
  return { add, machine, start }
}

describe("reconcile", () => {
  it("accounts for runs that wait, run, and are being written", () => {
    const { add, machine, start } = makeMachine()
    add()
    add(500)
    add()
    const running = start()
    machine.outcome(
      { partitionId: 1, runId: running.id, attempt: 1, lease: running.lease },
      { _tag: "interrupted" },
      0
    )

    assert.deepStrictEqual(reconcile(machine, { waiting: machine.out.writes, sent: [] }), {
      unaccounted: 0,
      examples: []
    })
  })

  it("finds a run that has lost its seat, its worker, its writer, or a count that is wrong", () => {
    const seat = makeMachine()
    const waiting = seat.add()
    seat.machine["lines"].get("t")!.window.remove(waiting.seat!)
    assert.include(reconcile(seat.machine, nothing).examples.join(), `${waiting.id} is ready and has no seat`)

    const worker = makeMachine()
    worker.add()
    const running = worker.start()
    worker.machine["leases"]["held"].clear()
    assert.include(reconcile(worker.machine, nothing).examples.join(), `${running.id} is running and held by nobody`)

    const writer = makeMachine()
    writer.add()
    const ended = writer.start()
    writer.machine.outcome(
      { partitionId: 1, runId: ended.id, attempt: 1, lease: ended.lease },
      { _tag: "success", result: "1" },
      0
    )
    const lost = reconcile(writer.machine, nothing)
    assert.deepStrictEqual(lost, { unaccounted: 1, examples: [`${ended.id} has a change that nobody writes`] })
    ended.unwritten = undefined
    assert.include(reconcile(writer.machine, nothing).examples.join(), "has nothing to be written")

    const count = makeMachine()
    count.add()
    count.machine["waiting"]["dueCount"] = 3
    assert.include(reconcile(count.machine, nothing).examples.join(), "3 due runs are counted, there are 0")
  })
})

describe("missing", () => {
  it("finds what the store has and memory does not, and the other way round", () => {
    const { add, machine } = makeMachine()
    add()
    add(500)
    const wanted = expected(machine)!
    const ready = new Map([["t", 1]])

    assert.strictEqual(missing(wanted, { running: 0, timers: 1, ready }).unaccounted, 0)
    assert.strictEqual(missing(wanted, { running: 1, timers: 1, ready }).unaccounted, 1)
    assert.strictEqual(missing(wanted, { running: 0, timers: 0, ready }).unaccounted, 1)
    const other = missing(wanted, { running: 0, timers: 1, ready: new Map([["t", 1], ["forgotten", 2]]) })
    assert.deepStrictEqual(other, {
      unaccounted: 2,
      examples: ["the store has 2 runs of the line forgotten, memory 0"]
    })
  })

  it("says nothing while a change is on its way", () => {
    const { add, machine } = makeMachine()
    add()
    machine.dispatch(0, { take: () => "w" })

    assert.isUndefined(expected(machine))
  })
})
