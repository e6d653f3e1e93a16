/** The hub with real machines of some partitions, workers scripted by the test, and a clock of its own. */
import { assert, describe, it } from "@effect/vitest"
import { QueueMachine } from "@orrery/core/QueueMachine"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { Assignment, ToWorker } from "@orrery/core/WorkerProtocol"
import * as Hunger from "../src/Hunger.js"
import type { QueueActor } from "../src/QueueActor.js"
import { type HubSession, WorkerHub } from "../src/WorkerHub.js"

const makeClock = () => {
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

const makeRandom = (seed: number) => {
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

const add = (actor: QueueActor, count: number): void => {
  for (let at = 0; at < count; at++) {
    actor.machine.admitNew({
      id: unsafeMakeRunId(1_700_000_000_000),
      seq: actor.machine.nextNumber(),
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
      startedAt: null
    })
  }
  actor.schedule()
}

const make = (partitions: number) => {
  const clock = makeClock()
  const hub = new WorkerHub({ leaseMs: 1e9, lostGraceMs: 1_000 }, clock)
  const scheduled = new Set<QueueActor>()
  const actors = Array.from({ length: partitions }, (_, at) => makeActor(at + 1, scheduled))
  for (const actor of actors) hub.register(actor)
  const collect = ({ machine }: QueueActor): void => {
    hub.freed(machine.out.freed.splice(0))
    for (const entry of machine.out.writes.splice(0)) {
      machine.send(entry, [], [])
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
      for (; scheduled.size > 0; turns++) turn([...scheduled][0]!)
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

const attach = (hub: WorkerHub, workerId: string) => {
  const out: Array<Assignment> = []
  const words: Array<boolean> = []
  let messages = 0
  const deliver = (message: ToWorker) => {
    if (message._tag === "hungry") words.push(message.hungry)
    if (message._tag !== "assign") return
    messages += 1
    out.push(...message.assignments)
  }
  const session = hub.attach({ workerId, tasks: ["work"], credit: 0 }, deliver, () => undefined) as HubSession
  return { out, words, session, messages: () => messages }
}

describe("WorkerHub", { timeout: 30_000 }, () => {
  it("gives no more than the credit and what may be ahead, over all actors, with random load", () => {
    const random = makeRandom(7)
    const { actors, end, hub, settle } = make(4)
    const workers = ["a", "b", "c"].map((id) => ({ ...attach(hub, id), credit: 0, ahead: 0 }))
    let ended = 0
    let added = 0
    for (let step = 0; step < 3_000; step++) {
      const worker = workers[random(3)]!
      const choice = random(10)
      if (choice === 0) {
        worker.credit = random(4)
        worker.ahead = random(3) * 8
        worker.session.setCredit(worker.credit, worker.ahead)
      } else if (choice < 4) {
        const count = random(12)
        add(actors[random(4)]!, count)
        added += count
      } else {
        for (const each of worker.out.splice(0, random(8))) {
          end(each)
          ended += 1
        }
      }
      const before = workers.map(({ out }) => out.length)
      settle()
      for (const [at, { ahead, credit, out }] of workers.entries()) {
        // What is out may be more only when the credit was lowered, and then does not grow.
        assert.isAtMost(out.length, Math.max(before[at]!, credit === 0 ? 0 : credit + ahead))
      }
    }
    for (const { session } of workers) session.setCredit(4, 16)
    for (settle(); ended < added; settle()) {
      const all = workers.flatMap(({ out }) => out.splice(0))
      assert.isNotEmpty(all, "runs that nobody is given")
      for (const each of all) end(each)
      ended += all.length
    }
  })

  it("fills a free slot at once, and the places behind it many at a time", () => {
    const { actors, end, hub, settle } = make(1)
    const { messages, out, session } = attach(hub, "a")
    session.setCredit(2, 20)
    add(actors[0]!, 1_000)
    settle()
    assert.strictEqual(out.length, 22)

    let refills = 0
    for (let ended = 0; ended < 400; ended++) {
      end(out.shift()!)
      const before = messages()
      settle()
      if (messages() > before) refills += 1
    }

    assert.isAtMost(refills, 40)
    session.setCredit(2, 0)
    while (out.length > 1) end(out.shift()!)
    settle()
    assert.strictEqual(out.length, 2)
  })

  it("shares what is free among the actors that wait, in few turns", () => {
    const { actors, end, hub, settle } = make(4)
    const { out, session } = attach(hub, "a")
    session.setCredit(4, 36)
    for (const actor of actors) add(actor, 1_000)
    settle()
    let turns = 0
    const seen = [0, 0, 0, 0]
    for (let round = 0; round < 40; round++) {
      for (const each of out.splice(0)) {
        seen[each.partitionId - 1]! += 1
        end(each)
      }
      turns += settle()
    }

    for (const count of seen) assert.isAtLeast(count, 300)
    // One run a turn would be 40 turns a round.
    assert.isAtMost(turns, 40 * 16)
  })

  it("counts a crash of what had a slot when its worker died, and what waited then gets one next time", () => {
    const { actors, end, giveUp, hub, settle } = make(1)
    const [actor] = actors
    const first = attach(hub, "a")
    first.session.setCredit(2, 4)
    add(actor!, 6)
    settle()
    const crashesOf = ({ runId }: Assignment) => actor!.machine.find(runId)?.crashes
    const [one, two, ...behind] = first.out
    first.session.lost()
    giveUp(1_000)

    const second = attach(hub, "b")
    second.session.setCredit(2, 4)
    settle()

    assert.deepStrictEqual(first.out.map(crashesOf), [1, 1, 0, 0, 0, 0])
    assert.deepStrictEqual(second.out.map(({ attempt, runId }) => [runId, attempt]), [[one!.runId, 2], [two!.runId, 2]])

    for (const each of second.out.splice(0)) end(each)
    settle()

    assert.deepStrictEqual(second.out.map(({ attempt, runId }) => [runId, attempt]), [
      [behind[0]!.runId, 1],
      [behind[1]!.runId, 1]
    ])
    second.session.lost()
    giveUp(1_000)
    assert.deepStrictEqual(behind.map(crashesOf), [1, 1, 0, 0])
  })

  it("counts what has been at its worker for longer than anything waits", () => {
    const { actors, giveUp, hub, settle } = make(1)
    const { out, session } = attach(hub, "a")
    session.setCredit(1, 4)
    add(actors[0]!, 3)
    settle()

    actors[0]!.machine.doubt("a", 3_000)
    giveUp(3_000)

    assert.deepStrictEqual(out.map(({ runId }) => actors[0]!.machine.find(runId)?.crashes), [1, 1, 1])
    session.goodbye()
  })

  it("does not flap about its hunger, and tells what lasts", () => {
    const random = makeRandom(11)
    const { actors, clock, end, hub, settle } = make(4)
    const { out, session, words } = attach(hub, "a")
    session.setCredit(2, 0)
    for (let ms = 0; ms < 5_000; ms++) {
      if (random(3) === 0) add(actors[random(4)]!, 1 + random(3))
      for (const each of out.splice(0, random(3))) end(each)
      settle()
      clock.advance(1)
    }
    assert.isAtMost(words.length, 2 * Math.ceil(5_000 / (Hunger.checkMs + Hunger.calmMs)))

    add(actors[0]!, 10_000)
    settle()
    clock.advance(Hunger.checkMs)
    settle()
    const whileFull = words.at(-1)
    actors[0]!.machine.dispatch(0, { take: () => "nobody" })
    actors[0]!.machine.out.assignments = []
    for (const each of out.splice(0)) end(each)
    settle()
    for (let at = 0; at < 10; at++) clock.advance(Hunger.checkMs)

    assert.strictEqual(whileFull, true)
    assert.strictEqual(words.at(-1), false)
  })
})

describe("Hunger", { timeout: 30_000 }, () => {
  it("is told once for a state that lasts, and not for one that passes", () => {
    const clock = makeClock()
    const appetite = Hunger.sated()
    const words: Array<boolean> = []
    let isHungry = false
    const worker = { look: () => isHungry, tell: (hungry: boolean) => void words.push(hungry) }

    Hunger.note(clock, appetite, true, worker)
    clock.advance(Hunger.checkMs)
    assert.deepStrictEqual(words, [])

    isHungry = true
    for (let at = 0; at < 100; at++) {
      Hunger.note(clock, appetite, at % 2 === 0, worker)
      clock.advance(5)
    }
    assert.deepStrictEqual(words, [true])

    isHungry = false
    Hunger.note(clock, appetite, false, worker)
    for (let at = 0; at < 10; at++) clock.advance(Hunger.checkMs)
    assert.deepStrictEqual(words, [true, false])
  })
})
