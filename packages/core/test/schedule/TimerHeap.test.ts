import { assert, describe, it } from "@effect/vitest"
import { TimerHeap } from "@orrery/core/schedule/TimerHeap"
import { FastCheck as fc } from "effect"

describe("TimerHeap", () => {
  it("gives what is due, the earliest first, by the time last set", () => {
    const moves = fc.array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.option(fc.integer({ min: 0, max: 99 }))), {
      maxLength: 400
    })
    fc.assert(
      fc.property(moves, fc.integer({ min: 0, max: 99 }), fc.integer({ min: 1, max: 30 }), (sets, now, limit) => {
        const heap = new TimerHeap()
        const model = new Map<string, number>()
        for (const [id, at] of sets) {
          heap.set(`${id}`, at ?? undefined)
          if (at === null) model.delete(`${id}`)
          else model.set(`${id}`, at)
        }
        const due = [...model].filter(([, at]) => at <= now).sort(([, a], [, b]) => a - b)

        assert.strictEqual(heap.peek(), model.size === 0 ? undefined : Math.min(...model.values()))
        const taken = heap.take(now, limit)
        assert.deepStrictEqual(taken.map((id) => model.get(id)), due.slice(0, limit).map(([, at]) => at))
        assert.strictEqual(new Set(taken).size, taken.length)
        for (const id of taken) model.delete(id)
        assert.strictEqual(heap.peek(), model.size === 0 ? undefined : Math.min(...model.values()))
      })
    )
  })
})
