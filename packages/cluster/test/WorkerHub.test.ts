/** The hub with real machines of some partitions, workers scripted by the test, and a clock of its own. */
import { assert, describe, it } from "@effect/vitest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import * as Hunger from "../src/Hunger.js"
import { add, attach, make, makeClock, makeRandom } from "./hubRig.js"

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
    const words: Array<number> = []
    let need = 0
    const worker = { look: () => need, tell: (told: number) => void words.push(told) }

    Hunger.note(clock, appetite, 1, worker)
    clock.advance(Hunger.checkMs)
    assert.deepStrictEqual(words, [])

    need = 1
    for (let at = 0; at < 100; at++) {
      Hunger.note(clock, appetite, at % 2 === 0 ? 1 : 0, worker)
      clock.advance(5)
    }
    assert.deepStrictEqual(words, [1])

    // More is told as soon as it has lasted, less once nobody has wanted so much for a while.
    need = 3
    Hunger.note(clock, appetite, 3, worker)
    clock.advance(Hunger.checkMs)
    need = 1
    Hunger.note(clock, appetite, 1, worker)
    clock.advance(Hunger.checkMs)
    assert.deepStrictEqual(words, [1, 3])

    need = 0
    Hunger.note(clock, appetite, 0, worker)
    for (let at = 0; at < 10; at++) clock.advance(Hunger.checkMs)
    assert.deepStrictEqual(words, [1, 3, 0])
  })
})
