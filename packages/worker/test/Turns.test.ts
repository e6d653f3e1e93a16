import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { targets } from "../src/Credit.js"
import * as Turns from "../src/Turns.js"

const player: fc.Arbitrary<Turns.Player> = fc.record({
  credit: fc.nat(20),
  running: fc.nat(20),
  hungry: fc.boolean(),
  leaving: fc.boolean(),
  need: fc.integer({ min: 1, max: 25 }),
  largeAt: fc.nat(3_000)
})

/** Nodes that always have runs of one slot, and of `need`; attempts take 300 ms. Answers when each began one of `need`. */
const play = (slots: number, needs: ReadonlyArray<number>, ms: number) => {
  const turns = Turns.make<object>()
  const nodes = needs.map((need) => ({
    need,
    credit: 0,
    running: [] as Array<{ readonly slots: number; readonly until: number }>,
    largeAt: -Infinity,
    began: [] as Array<number>
  }))
  const used = (node: typeof nodes[number]) => node.running.reduce((sum, each) => sum + each.slots, 0)
  for (let now = 0; now < ms; now += 10) {
    for (const node of nodes) node.running = node.running.filter(({ until }) => until > now)
    const players = nodes.map((node) => [node, { ...node, running: used(node), hungry: true, leaving: false }] as const)
    const { wanted } = Turns.share(turns, slots, players, now)
    let free = slots - nodes.reduce((sum, node) => sum + Math.max(node.credit, used(node)), 0)
    for (const [at, node] of nodes.entries()) {
      if (wanted[at]! < node.credit) {
        const before = Math.max(node.credit, used(node))
        node.credit = wanted[at]!
        free += before - Math.max(node.credit, used(node))
      }
    }
    for (const [at, node] of nodes.entries()) {
      const more = Math.min(wanted[at]! - node.credit, Math.max(0, free))
      if (more <= 0) continue
      node.credit += more
      free -= more
    }
    for (const node of nodes) {
      if (node.need > 1 && node.credit - used(node) >= node.need) {
        node.running.push({ slots: node.need, until: now + 300 })
        node.largeAt = now
        node.began.push(now)
      }
      // Kept for the large one, where the share is large enough for it.
      while (node.need === 1 || node.credit < node.need) {
        if (node.credit - used(node) < 1) break
        node.running.push({ slots: 1, until: now + 300 })
        if (node.need === 1) node.began.push(now)
      }
    }
    const all = nodes.reduce((sum, node) => sum + used(node), 0)
    assert.isAtMost(all, slots)
  }
  return nodes.map(({ began }) => began)
}

const longestPause = (times: ReadonlyArray<number>, until: number): number => {
  const all = [0, ...times, until]
  return Math.max(...all.slice(1).map((at, index) => at - all[index]!))
}

describe("Turns", { timeout: 30_000 }, () => {
  it("never give more than the slots, whatever was before, and the holder what it needs", () => {
    fc.assert(fc.property(
      fc.nat(30),
      fc.array(fc.array(player, { minLength: 4, maxLength: 4 }), { minLength: 1, maxLength: 6 }),
      (slots, rounds) => {
        const turns = Turns.make<object>()
        const keys = [{}, {}, {}, {}]
        for (const [at, players] of rounds.entries()) {
          const { wanted } = Turns.share(turns, slots, players.map((each, index) => [keys[index]!, each]), at * 600)

          assert.isAtMost(wanted.reduce((sum, each) => sum + each, 0), slots)
          wanted.forEach((each, index) => {
            assert.isTrue(Number.isInteger(each) && each >= 0)
            if (players[index]!.leaving) assert.strictEqual(each, 0)
          })
          const holder = keys.findIndex((key) => key === turns.holder)
          if (holder >= 0) assert.strictEqual(wanted[holder], players[holder]!.need)
          else assert.deepStrictEqual(wanted, targets(slots, players))
        }
      }
    ))
  })

  it("are left alone where every share is large enough", () => {
    const turns = Turns.make<object>()
    const calm = { credit: 4, running: 2, hungry: true, leaving: false, need: 4, largeAt: 0 }

    assert.deepStrictEqual(Turns.share(turns, 8, [[{}, calm], [{}, calm]], 0), { wanted: [4, 4], againMs: undefined })
  })

  it("let each node begin what takes most of the slots, within a bound, and the others go on", () => {
    for (const [slots, needs] of [[4, [3, 3, 3]], [4, [4, 1, 1]], [6, [5, 4, 1]], [3, [3, 2, 1]]] as const) {
      const ms = 60_000
      const began = play(slots, needs, ms)
      // A turn of each of the others, its attempts' 300 ms and rest included, twice over.
      const bound = needs.length * 2 * (300 + 2 * Turns.turnMs)
      for (const [at, times] of began.entries()) {
        assert.isAtMost(longestPause(times, ms), bound, `node ${at} of ${needs.join(", ")} in ${slots}`)
      }
    }
  })
})
