import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { SimProcess } from "../src/simulation/SimProcess.js"
import { World } from "../src/simulation/World.js"

const timeouts = () => process.getActiveResourcesInfo().filter((each) => each === "Timeout").length

describe("world", () => {
  it("makes the same events however often Math.random is asked", () => {
    const eventsAfter = (draws: number) => {
      const world = new World(7)
      return world.inside(() => {
        const drawn = Array.from({ length: draws }, () => Math.random())
        return { drawn, ties: [1, 2, 3].map((ms) => world.after(ms, () => undefined).tie) }
      })
    }

    const [none, some] = [eventsAfter(0), eventsAfter(5)]

    assert.deepStrictEqual(some.ties, none.ties)
    assert.deepStrictEqual(some.drawn, eventsAfter(5).drawn)
  })

  it("rings intervals by its own time until they are cleared", () => {
    const world = new World(1)
    const rings: Array<number> = []
    world.inside(() => {
      const one = new SimProcess(world, "one")
      one.enter(() => {
        const interval = setInterval(() => {
          rings.push(world.now)
          if (rings.length === 3) clearInterval(interval)
        }, 10)
      })
      world.run(100)
    })

    assert.deepStrictEqual(rings, [10, 20, 30])
  })

  it("takes no time but its own, also for what Effect times", () => {
    const world = new World(1)
    const took: Array<number> = []
    world.inside(() => {
      const one = new SimProcess(world, "one")
      for (const effect of [Effect.sleep("250 millis"), Effect.void]) {
        const timed = Effect.map(Effect.timed(effect), ([each]) => void took.push(Duration.toMillis(each)))
        one.enter(() => one.run(timed))
      }
      world.run(1_000)
    })

    assert.deepStrictEqual(took, [0, 250])
  })

  it("leaves no timer of this process behind for what waits for ever", () => {
    const world = new World(1)
    const before = timeouts()
    world.inside(() => {
      const one = new SimProcess(world, "one")
      one.enter(() => one.run(Effect.never))
      world.run(100)
    })

    assert.strictEqual(timeouts(), before)
  })
})
