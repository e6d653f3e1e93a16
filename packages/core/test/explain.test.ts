import { assert, describe, it } from "@effect/vitest"
import { explain } from "@orrery/core/explain"
import { spentOf } from "@orrery/core/Explanation"
import { noRules } from "@orrery/core/QueueSettings"
import type { RunId } from "@orrery/core/RunId"
import type { RunKeys } from "@orrery/core/RunKeys"
import { StartPace } from "@orrery/core/StartPace"
import { machineOf } from "./machineRig.js"

const half = { most: 50, taken: 0 }
const workersOf = (slots: number | undefined, backfills = half) => (
  { slotsFor: () => slots, backfillsOf: () => backfills }
)
const reasonsOf = (machine: ReturnType<typeof machineOf>["machine"], id: RunId, now: number, hasWorker = true) =>
  explain(machine, id, now, workersOf(hasWorker ? 1 : undefined))!.reasons

describe("explain", () => {
  it("tells of time, and of a failure that is tried again", () => {
    const { admit, fail, machine, start } = machineOf()
    const later = admit(null, { state: "scheduled", scheduledAt: 500 })
    const failed = admit()
    fail(start(1)[0]!, 2)

    assert.deepStrictEqual(reasonsOf(machine, later.id, 3)[0], { _tag: "WaitingForTime", until: 500 })
    const [reason] = reasonsOf(machine, failed.id, 3)
    assert.deepInclude(reason, { _tag: "Backoff", lastError: { kind: "failure", tag: "Down", message: "no" } })
    assert.isAbove((reason as { readonly until: number }).until, 3)
  })

  it("tells who runs it, and what nobody can run", () => {
    const { admit, machine, start } = machineOf()
    const run = admit()
    assert.deepStrictEqual(reasonsOf(machine, run.id, 0, false)[0], { _tag: "NoWorker", task: "a" })
    start(7)
    machine.cancel(run.id, 8)

    const expected = { _tag: "Running", worker: "w", since: 7, attempt: 1, isCancelRequested: true }
    assert.deepStrictEqual(reasonsOf(machine, run.id, 9), [expected] as never)
  })

  it("tells of a pause of the queue, or of a key, before what else would keep it", () => {
    const { admit, machine } = machineOf()
    const run = admit({ tenant: "acme" })
    const pause = { by: "ann", why: "leak", at: 4 }
    const key = { kind: "fairness", key: "acme" } as const
    machine.configure({ ...noRules, paused: pause, pausedKeys: [{ of: key, pause }], concurrency: 1 }, 5)

    const [first, second, ...rest] = reasonsOf(machine, run.id, 6)

    assert.deepStrictEqual(first, { _tag: "Paused", by: "ann", why: "leak", since: 4 })
    assert.deepStrictEqual(second, { _tag: "Paused", by: "ann", why: "leak", since: 4, key })
    assert.deepStrictEqual(rest.map(({ _tag }) => _tag), ["Behind"])
  })

  it("names the limit that is full and who holds it; of a key, and of the queue", () => {
    const { admit, machine, start } = machineOf()
    const keys: RunKeys = { limits: [{ name: "api", key: "x", limit: 2 }] }
    const running = [admit(keys), admit(keys)]
    const other = admit()
    start(0)
    const run = admit(keys)
    machine.configure({ ...noRules, concurrency: 3 }, 1)

    const [queue, key] = reasonsOf(machine, run.id, 2)

    const holders = running.map(({ id }) => id)
    assert.deepStrictEqual(key, { _tag: "Blocked", limit: { name: "api", key: "x" }, most: 2, running: 2, holders })
    assert.deepInclude(queue, { _tag: "Blocked", limit: null, most: 3, running: 3 })
    assert.sameMembers([...(queue as { readonly holders: ReadonlyArray<RunId> }).holders], [...holders, other.id])
  })

  it("tells until when a rate is used up", () => {
    const { admit, machine, start } = machineOf()
    const keys: RunKeys = { rates: [{ name: "mail", key: "x", limit: 1, perMs: 100 }] }
    admit(keys)
    start(10)
    const run = admit(keys)
    const limit = { name: "mail", key: "x" }
    assert.deepStrictEqual(reasonsOf(machine, run.id, 20)[0], { _tag: "RateLimited", limit, until: 110 })
    machine.configure({ ...noRules, rate: { limit: 1, perMs: 50 } }, 20)
    admit()
    start(25)

    assert.deepStrictEqual(reasonsOf(machine, run.id, 30)[0], { _tag: "RateLimited", limit: null, until: 75 })
  })

  it("tells what a run of an ordering key waits for, and whom a failing one holds up", () => {
    const { admit, fail, machine, start } = machineOf()
    const [head, second, third] = [admit({ order: "o" }), admit({ order: "o" }), admit({ order: "o" })]
    fail(start(1)[0]!, 2)

    const [reason] = reasonsOf(machine, third.id, 3)
    const explained = explain(machine, head.id, 3, workersOf(1))!

    assert.deepInclude(reason, { _tag: "WaitsForOrder", key: "o", behind: head.id, state: "retrying" })
    assert.strictEqual(explained.reasons[0]._tag, "Backoff")
    const first = [second.id, third.id]
    assert.deepStrictEqual(explained.holdsUp, { key: "o", runs: 2, isAtLeast: false, first })
  })

  it("counts who comes first, over the lines of the queue, and estimates by the pace", () => {
    const { admit, end, machine, start } = machineOf()
    for (let n = 0; n < 60; n++) {
      admit()
      for (const one of start(n * 1_000, 1)) end(one, n * 1_000)
    }
    for (let n = 0; n < 4; n++) admit(null, { task: n % 2 === 0 ? "a" : "b" })
    admit({ tenant: "t" })
    const run = admit()
    admit(null, { task: "b" })

    const [reason] = reasonsOf(machine, run.id, 60_000)

    assert.deepInclude(reason, { _tag: "Behind", runs: 5, isAtLeast: false })
    const { p50Ms, p90Ms } = (reason as { readonly eta: { readonly p50Ms: number; readonly p90Ms: number } }).eta
    assert.approximately(p50Ms, 6_000, 100)
    assert.isAbove(p90Ms, p50Ms)
  })

  it("counts beyond its memory by what the store has counted", () => {
    const { admit, machine } = machineOf(undefined, [], 1, 2)
    for (let n = 0; n < 12; n++) admit()
    const last = admit()
    assert.isUndefined(explain(machine, last.id, 0, workersOf(1)))

    const explained = explain(machine, { run: last, before: { runs: 12, isAtLeast: true } }, 0, workersOf(1))!

    assert.deepStrictEqual(explained.reasons, [{ _tag: "Behind", runs: 12, isAtLeast: true, eta: null }])
  })

  it("says where the time of a run went", () => {
    const run = {
      state: "ready",
      createdAt: 100,
      scheduledAt: 300,
      startedAt: null,
      finishedAt: null,
      attempt: 0
    } as const
    const none = { earlierMs: 0, waitingForTimeMs: 0, inLineMs: 0, runningMs: 0 }

    assert.deepStrictEqual(spentOf(run, 250), { ...none, waitingForTimeMs: 150 })
    assert.deepStrictEqual(spentOf(run, 350), { ...none, waitingForTimeMs: 200, inLineMs: 50 })
    const ended = { ...run, state: "succeeded", startedAt: 350, finishedAt: 400, attempt: 1 } as const
    assert.deepStrictEqual(spentOf(ended, 900), { ...none, waitingForTimeMs: 200, inLineMs: 50, runningMs: 50 })
    const again = { ...run, state: "retrying", startedAt: 350, scheduledAt: 500, attempt: 1 } as const
    assert.deepStrictEqual(spentOf(again, 450), { ...none, earlierMs: 350 })
  })
})

describe("StartPace", () => {
  it("forgets what is longer ago than two minutes, and knows bursts from a steady pace", () => {
    const steady = new StartPace()
    const bursts = new StartPace()
    for (let n = 0; n < 120; n++) {
      steady.started(n * 1_000)
      bursts.started(Math.floor(n / 30) * 30_000)
    }
    const even = steady.eta(10, 119_000)!
    const uneven = bursts.eta(10, 119_000)!

    assert.approximately(even.p50Ms, uneven.p50Ms, 500)
    assert.isAbove(uneven.p90Ms, even.p90Ms)
    assert.isNull(steady.eta(10, 400_000))
    assert.isNull(new StartPace().eta(1, 0))
  })
})
