import { assert, describe, it } from "@effect/vitest"
import type { StoredRun } from "@orrery/core/Journal"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { lineOf, type RunKeys } from "@orrery/core/RunKeys"
import { defaultPolicy } from "@orrery/core/RunRequest"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"
import type { Assignment } from "@orrery/core/WorkerProtocol"

/** A machine whose commits come at once, and a worker with so many slots. */
const makeQueue = (slots: number) => {
  const machine = new QueueMachine(
    { partitionId: 1, epoch: 1, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 1_000, bytesMax: 1e6 } },
    { now: 0, lines: [], hasTimers: false, running: [], adoptUntil: 0 }
  )
  const running = new Map<RunId, Assignment>()
  const ends = new Map<RunId, string>()
  const failures = new Map<RunId, string>()
  const cancels: Array<RunId> = []
  const settle = () => {
    while (machine.out.writes.length > 0) {
      for (const entry of machine.out.writes.splice(0)) {
        if (entry.unwritten === "finish") {
          ends.set(entry.id, entry.end!.state)
          if (entry.failure !== null) failures.set(entry.id, entry.failure)
        }
        machine.changes.send(entry, [], [])
        machine.committed(entry)
      }
    }
    cancels.push(...machine.out.cancels.splice(0).map(({ attempt }) => attempt.runId))
  }
  const add = (keys: RunKeys, task = "t"): RunId => {
    const seq = machine.numbers.next()
    const text = JSON.stringify(keys)
    const run: StoredRun = {
      id: unsafeMakeRunId(1),
      seq,
      task,
      priority: 5,
      createdAt: 0,
      payload: "{}",
      policy: JSON.stringify(defaultPolicy),
      keys: text,
      state: "ready",
      scheduledAt: 0,
      orderKey: machine.orderKeyOf({ line: lineOf(task, text), scheduledAt: 0, priority: 5, seq }),
      attempt: 0,
      crashes: 0,
      lease: 0,
      worker: null,
      failure: null,
      startedAt: null
    }
    machine.admitNew(run)
    settle()
    return run.id
  }
  /** Starts what may start; answers it in order. */
  const start = (now: number): ReadonlyArray<RunId> => {
    let free = slots - running.size
    machine.tick(now)
    machine.dispatch(now, { take: () => free-- > 0 ? "w" : undefined })
    settle()
    const started = machine.out.assignments.splice(0).map(({ assignment }) => assignment)
    for (const assignment of started) running.set(assignment.runId, assignment)
    return started.map(({ runId }) => runId)
  }
  const end = (id: RunId, now: number, tag: "success" | "cancelled" = "success") => {
    machine.outcome(running.get(id)!, tag === "success" ? { _tag: tag, result: "1" } : { _tag: tag }, now)
    running.delete(id)
    settle()
  }
  return { add, start, end, ends, failures, cancels, machine }
}

describe("tenants", () => {
  it("take turns by their weights, whatever each has waiting", () => {
    const queue = makeQueue(1)
    const owner = new Map<RunId, string>()
    const weights = { big: 1, small: 1, heavy: 3 }
    for (const [tenant, count] of [["big", 300], ["small", 10], ["heavy", 60]] as const) {
      for (let n = 0; n < count; n++) owner.set(queue.add({ tenant, weight: weights[tenant] }), tenant)
    }
    const order: Array<string> = []
    for (let now = 1; now <= 50; now++) {
      const [id] = queue.start(now)
      order.push(owner.get(id!)!)
      queue.end(id!, now)
    }

    const count = (tenant: string) => order.filter((each) => each === tenant).length
    assert.deepStrictEqual([count("big"), count("small"), count("heavy")], [10, 10, 30])
    // No one of them is served in a row while others wait for their turn.
    assert.isAtMost(order.lastIndexOf("small") + 1, 50)
    assert.notInclude(order.join(" "), "big big")
  })

  it("do not let one with nine tenths of the arrivals raise the wait of another", () => {
    const queue = makeQueue(1)
    const owner = new Map<RunId, number>()
    for (let n = 0; n < 900; n++) owner.set(queue.add({ tenant: "t0" }), 0)
    for (let n = 1; n < 100; n++) owner.set(queue.add({ tenant: `t${n}` }), n)
    const served = new Set<number>()
    for (let now = 1; now <= 100; now++) {
      const [id] = queue.start(now)
      served.add(owner.get(id!)!)
      queue.end(id!, now)
    }

    assert.strictEqual(served.size, 100)
  })
})

describe("a full concurrency key", () => {
  const keyed = (onFull?: "cancelNewest" | "cancelRunning"): RunKeys => (
    { limits: [{ name: "k", key: "x", limit: 1, ...onFull === undefined ? {} : { onFull } }] }
  )

  it("makes runs wait, and lets the next in when one ends", () => {
    const queue = makeQueue(5)
    const [first, second] = [queue.add(keyed()), queue.add(keyed())]

    assert.deepStrictEqual(queue.start(1), [first])
    assert.deepStrictEqual(queue.start(2), [])
    queue.end(first, 3)
    assert.deepStrictEqual(queue.start(4), [second])
  })

  it("cancels the newest where it shall", () => {
    const queue = makeQueue(5)
    const [first, second] = [queue.add(keyed("cancelNewest")), queue.add(keyed("cancelNewest"))]

    assert.strictEqual(queue.ends.get(second), "cancelled")
    assert.include(queue.failures.get(second), "ConcurrencyFull")
    assert.deepStrictEqual(queue.start(1), [first])
    queue.end(first, 2)
    assert.strictEqual(queue.ends.get(first), "succeeded")
    assert.deepStrictEqual(queue.start(3), [])
    // There is room again.
    const third = queue.add(keyed("cancelNewest"))
    assert.deepStrictEqual(queue.start(4), [third])
  })

  it("cancels the oldest where it shall, and waits for its end", () => {
    const queue = makeQueue(5)
    const first = queue.add(keyed("cancelRunning"))
    queue.start(1)
    const second = queue.add(keyed("cancelRunning"))

    assert.deepStrictEqual(queue.cancels, [first])
    assert.deepStrictEqual(queue.start(2), [])
    queue.end(first, 3, "cancelled")
    assert.strictEqual(queue.ends.get(first), "cancelled")
    assert.include(queue.failures.get(first), "ConcurrencyReplaced")
    assert.deepStrictEqual(queue.start(4), [second])
  })

  it("holds up its own runs only", () => {
    const queue = makeQueue(5)
    const first = queue.add(keyed())
    queue.add(keyed())
    const other = queue.add({ limits: [{ name: "k", key: "y", limit: 1 }] })

    assert.deepStrictEqual(queue.start(1), [first, other])
  })

  it("has the limit that its newest run says", () => {
    const queue = makeQueue(5)
    const at = (limit: number): RunKeys => ({ limits: [{ name: "k", key: "x", limit }] })
    queue.add(at(1))
    queue.add(at(1))
    assert.strictEqual(queue.start(1).length, 1)
    queue.add(at(2))

    assert.strictEqual(queue.start(2).length, 1)
    assert.strictEqual(queue.start(3).length, 0)
  })
})
