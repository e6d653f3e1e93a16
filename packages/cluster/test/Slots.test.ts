/** Runs that take several slots, and those of backfills, at the hub of a node: exact at every step, and nobody starves. */
import { assert, describe, it } from "@effect/vitest"
import { backfillLimit } from "@orrery/core/RunKeys"
import { defaultPolicy } from "@orrery/core/RunRequest"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { add, attach, make, makeRandom } from "./hubRig.js"

const tasks = ["work", "dear"]
/** Of a task of its own: runs of one task wait in one line, where none overtakes. */
const costing = (slots: number) => ({ task: "dear", policy: JSON.stringify({ ...defaultPolicy, slots }) })
const backfill = { keys: JSON.stringify({ limits: [backfillLimit] }) }

const slotsOf = ({ slots = 1 }: Assignment) => slots
const taken = (out: ReadonlyArray<Assignment>) => out.reduce((sum, each) => sum + slotsOf(each), 0)

describe("slots at the hub", { timeout: 60_000 }, () => {
  it("are never overdrawn, with random loads, credits and ends; half is for backfills; and all is run", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = makeRandom(seed)
      const { actors, end, hub, settle } = make(3)
      const sizes = [4, 6, 1]
      const workers = sizes.map((slots, at) => ({ ...attach(hub, `w${at}`, tasks), slots, credit: 0, ahead: 0 }))
      const backfills = new Set<string>()
      let left = 0
      let atMost = 0
      for (let step = 0; step < 800; step++) {
        const worker = workers[random(workers.length)]!
        const choice = random(10)
        if (choice === 0) {
          worker.credit = random(worker.slots + 1)
          worker.ahead = random(2) * 8
          worker.session.setCredit(worker.credit, worker.ahead, false, worker.slots)
        } else if (choice < 4) {
          const actor = actors[random(3)]!
          const kind = random(4)
          const more = kind === 0 ? costing(2 + random(5)) : kind === 1 ? backfill : kind === 2 ? costing(3) : {}
          const runs = add(actor, 1 + random(4), more)
          if (kind === 1) { for (const { id } of runs) backfills.add(id) }
          left += runs.length
        } else {
          for (const each of worker.out.splice(0, random(6))) {
            end(each)
            left -= 1
          }
        }
        const before = workers.map(({ out }) => [...out])
        settle()
        const all = workers.reduce((sum, { credit }) => sum + credit, 0)
        for (const [at, { ahead, credit, out, slots }] of workers.entries()) {
          const fresh = out.filter((each) => !before[at]!.includes(each))
          if (fresh.length > 0) assert.isAtMost(taken(out), credit + ahead)
          for (const each of fresh) assert.isAtMost(slotsOf(each), slots)
        }
        const running = workers.flatMap(({ out }) => out).filter(({ runId }) => backfills.has(runId))
        const isNew = running.some((each) => !before.some((some) => some.includes(each)))
        if (isNew) assert.isAtMost(running.length, Math.max(1, Math.floor(all / 2)))
        atMost = Math.max(atMost, running.length)
      }
      assert.isAbove(atMost, 1)
      for (const { ahead, session, slots } of workers) session.setCredit(slots, ahead, false, slots)
      for (settle(); left > 0; settle()) {
        const all = workers.flatMap(({ out }) => out.splice(0))
        assert.isNotEmpty(all, `runs that nobody is given, seed ${seed}`)
        for (const each of all) end(each)
        left -= all.length
      }
    }
  })

  it("are kept for the first in line: it waits for what had begun before, and for nothing else", () => {
    const { actors: [actor], end, hub, settle } = make(1)
    const { out, session } = attach(hub, "a", tasks)
    session.setCredit(4, 0, false, 4)
    add(actor!, 6)
    const [dear] = add(actor!, 1, costing(3))
    add(actor!, 50)
    settle()

    const order: Array<string> = []
    while (!order.includes(dear!.id)) {
      const each = out.shift()!
      order.push(each.runId)
      end(each)
      settle()
      if (out.some(({ runId }) => runId === dear!.id)) order.push(dear!.id)
    }

    // Six came first; three of the four that ran when it was next have ended, and none of the fifty has begun.
    assert.strictEqual(order.indexOf(dear!.id), 5)
    assert.strictEqual(out.length, 2)
    assert.isTrue(hub.isReserved("a") === false)
  })

  it("are not starved of by other queues, nor are those by it", () => {
    const { actors: [cheap, dear], end, hub, settle } = make(2)
    const { out, session } = attach(hub, "a", tasks)
    session.setCredit(4, 0, false, 4)
    add(cheap!, 400)
    add(dear!, 40, costing(3))
    settle()
    const seen = { cheap: 0, dear: 0 }
    for (let round = 0; round < 200; round++) {
      const each = out.shift()!
      seen[each.partitionId === 1 ? "cheap" : "dear"] += 1
      end(each)
      settle()
    }

    assert.isAbove(seen.dear, 15)
    assert.isAbove(seen.cheap, 60)
  })

  it("stay kept while runs of the same queue begin elsewhere, which is at the end of the turns then", () => {
    const { actors: [both, other], end, hub, settle } = make(2)
    const large = attach(hub, "large", tasks)
    const small = attach(hub, "small", ["work"])
    large.session.setCredit(4, 0, false, 4)
    small.session.setCredit(1, 0, false, 1)
    add(other!, 5)
    settle()
    const [dear] = add(both!, 1, costing(3))
    add(both!, 100)
    add(other!, 100)
    settle()
    assert.isTrue(hub.isReserved("large"))

    for (let ends = 0; ends < 3; ends++) {
      // A slot elsewhere comes free in between: the next in turn has it.
      for (let at = 0; at < 3; at++) {
        end(small.out.shift()!)
        settle()
        assert.lengthOf(small.out, 1)
      }
      end(large.out.shift()!)
      settle()
    }

    assert.deepStrictEqual(large.out.map(({ runId }) => runId === dear!.id), [false, true])
  })

  it("of a worker that is too small for it are not kept from others by the run that comes first", () => {
    const { actors: [dear, cheap], end, hub, settle } = make(2)
    const large = attach(hub, "large", tasks)
    const small = attach(hub, "small", tasks)
    large.session.setCredit(3, 0, false, 3)
    small.session.setCredit(2, 0, false, 3)
    add(cheap!, 5)
    settle()
    add(dear!, 1, costing(3))
    settle()
    assert.isTrue(hub.isReserved("large"))
    add(cheap!, 10)
    settle()

    // Three slots of it, but two of them this node's: of no use to the dear one.
    end(small.out.shift()!)
    settle()
    assert.lengthOf(small.out, 2)
    assert.lengthOf(large.out, 3)
  })

  it("are let go when the run does not want them any more", () => {
    const { actors: [actor], end, hub, settle } = make(1)
    const { out, session } = attach(hub, "a", tasks)
    session.setCredit(4, 0, false, 4)
    add(actor!, 2)
    settle()
    const [dear] = add(actor!, 1, costing(3))
    add(actor!, 5)
    settle()
    assert.isTrue(hub.isReserved("a"))
    assert.strictEqual(out.length, 2)

    actor!.machine.cancel(dear!.id, 0)
    actor!.schedule()
    settle()

    assert.isFalse(hub.isReserved("a"))
    assert.strictEqual(out.length, 4)
    end(out.shift()!)
  })

  it("of workers that are too small, or know of no such runs, are not used; a small share is told of", () => {
    const { actors: [actor], clock, hub, settle } = make(1)
    const old = attach(hub, "old", tasks)
    const small = attach(hub, "small", tasks)
    const large = attach(hub, "large", tasks)
    old.session.setCredit(20, 0)
    small.session.setCredit(2, 0, false, 2)
    large.session.setCredit(1, 0, false, 8)
    add(actor!, 1, costing(3))
    settle()
    for (let at = 0; at < 4; at++) clock.advance(50)

    assert.deepStrictEqual([old.out.length, small.out.length, large.out.length], [0, 0, 0])
    assert.strictEqual(hub.slotsFor("dear"), 8)
    assert.deepStrictEqual([old.needs, small.needs, large.needs], [[], [], [3]])

    large.session.setCredit(3, 0, false, 8)
    settle()
    assert.deepStrictEqual(large.out.map(slotsOf), [3])
  })

  it("let one run of a backfill run where there is one slot, and never keep other queues from theirs", () => {
    const { actors: [filled, other], end, hub, settle } = make(2)
    const { out, session } = attach(hub, "a")
    session.setCredit(1, 0, false, 1)
    add(filled!, 3, backfill)
    settle()
    assert.strictEqual(out.length, 1)

    session.setCredit(6, 0, false, 6)
    settle()
    assert.strictEqual(out.length, 3)
    add(other!, 10)
    settle()
    assert.deepStrictEqual(out.map(({ partitionId }) => partitionId).sort(), [1, 1, 1, 2, 2, 2])
    end(out.shift()!)
  })
})
