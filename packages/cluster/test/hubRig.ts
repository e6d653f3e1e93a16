/** The hub with real machines of some partitions, workers scripted by the test, and a clock of its own. */
import { assert } from "@effect/vitest"
import type { StoredRun } from "@orrery/core/Journal"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { Assignment, ToWorker } from "@orrery/core/WorkerProtocol"
import type { QueueActor } from "../src/QueueActor.js"
import { type HubSession, WorkerHub } from "../src/WorkerHub.js"

export const makeClock = () => {
  let now = 1_000
  let timers: Array<{ readonly at: number; readonly run: () => void }> = []
  return {
    monotonic: () => now,
    later: (ms: number, run: () => void) => void timers.push({ at: now + ms, run }),
    advance: (ms: number) => {
      now += ms
      const due = timers.filter((timer) => timer.at <= now)
      timers = timers.filter((timer) => timer.at > now)
      for (const timer of due) timer.run()
    }
  }
}

export const makeRandom = (seed: number) => {
  let state = seed
  return (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return (state >>> 8) % below
  }
}

/** What the hub uses of an actor: its machine, and turns. */
const makeActor = (partitionId: number, scheduled: Set<QueueActor>) => {
  const options = { epoch: 1, agingStepMs: 1_000, maxCrashes: 3, window: { runsMax: 10_000, bytesMax: 1e9 } }
  const taken = { now: 0, lines: [], hasTimers: false, running: [], adoptUntil: 0 }
  const machine = new QueueMachine({ partitionId, ...options }, taken)
  const actor: QueueActor = {
    partitionId,
    machine,
    doubt: (worker: string, graceMs: number) => machine.doubt(worker, graceMs),
    workerGone: () => undefined,
    schedule: () => void scheduled.add(actor)
  } as unknown as QueueActor
  return actor
}

export const add = (actor: QueueActor, count: number, change: Partial<StoredRun> = {}): ReadonlyArray<StoredRun> => {
  const runs = Array.from({ length: count }, (): StoredRun => ({
    id: unsafeMakeRunId(1_700_000_000_000),
    seq: actor.machine.numbers.next(),
    task: "work",
    priority: 0,
    createdAt: 0,
    payload: "1",
    policy: "",
    keys: null,
    state: "ready",
    scheduledAt: 0,
    orderKey: 0,
    attempt: 0,
    crashes: 0,
    lease: 0,
    worker: null,
    failure: null,
    startedAt: null,
    ...change
  }))
  for (const run of runs) actor.machine.admitNew(run)
  actor.schedule()
  return runs
}

export const make = (partitions: number) => {
  const clock = makeClock()
  const hub = new WorkerHub({ leaseMs: 1e9, lostGraceMs: 1_000 }, clock)
  const scheduled = new Set<QueueActor>()
  const actors = Array.from({ length: partitions }, (_, at) => makeActor(at + 1, scheduled))
  for (const actor of actors) hub.register(actor)
  const collect = ({ machine }: QueueActor): void => {
    if (machine.out.freed.length > 0) hub.freed(machine.out.freed.splice(0))
    for (const entry of machine.out.writes.splice(0)) {
      machine.changes.send(entry, [], [])
      machine.committed(entry)
    }
    for (const { assignment, worker } of machine.out.assignments.splice(0)) hub.assign(worker, [assignment])
  }
  const turn = (actor: QueueActor): void => {
    scheduled.delete(actor)
    actor.machine.dispatch(0, hub.poolFor(actor))
    collect(actor)
    hub.wanting(actor, true)
  }
  return {
    clock,
    hub,
    actors,
    /** The graces of workers that are lost are over. */
    giveUp: (atMs: number): void => {
      for (const actor of actors) {
        actor.machine.tick(atMs)
        collect(actor)
        actor.schedule()
      }
    },
    /** Until nobody has anything to do. Answers how many turns that took. */
    settle: (): number => {
      let turns = 0
      for (; scheduled.size > 0; turns++) {
        assert.isBelow(turns, 10_000, "they schedule each other for ever")
        turn([...scheduled][0]!)
      }
      return turns
    },
    end: ({ attempt, lease, partitionId, runId }: Assignment): void => {
      const actor = actors[partitionId - 1]!
      const entry = actor.machine.outcome(
        { attempt, lease, partitionId, runId },
        { _tag: "success", result: "1" },
        0
      )
      assert.isDefined(entry)
      collect(actor)
      actor.schedule()
    }
  }
}

export const attach = (hub: WorkerHub, workerId: string, tasks: ReadonlyArray<string> = ["work"]) => {
  const out: Array<Assignment> = []
  const words: Array<boolean> = []
  const needs: Array<number | undefined> = []
  let messages = 0
  const deliver = (message: ToWorker) => {
    if (message._tag === "hungry") {
      words.push(message.hungry)
      needs.push(message.need)
    }
    if (message._tag !== "assign") return
    messages += 1
    out.push(...message.assignments)
  }
  const session = hub.attach({ workerId, tasks, credit: 0 }, deliver, () => undefined) as HubSession
  return { out, words, needs, session, messages: () => messages }
}
