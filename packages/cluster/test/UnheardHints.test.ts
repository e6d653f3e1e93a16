import { assert, describe, it } from "@effect/vitest"
import { none, pollMs, Signals, type SignalsHealth } from "@orrery/core/Signals"
import { Effect, Layer, TestClock } from "effect"
import { Reach } from "../src/Reach.js"
import * as UnheardHints from "../src/UnheardHints.js"

/** How often the others were told so far. */
const start = (health: () => SignalsHealth | undefined) =>
  Effect.gen(function*() {
    let told = 0
    const reach = { hintsUnheard: Effect.sync(() => void (told += 1)) } as unknown as Reach["Type"]
    yield* Layer.build(
      UnheardHints.layer.pipe(
        Layer.provide(Layer.merge(Layer.succeed(Reach, reach), Layer.succeed(Signals, { ...none, health })))
      )
    )
    return () => told
  })

describe("a node whose hints do not get out", () => {
  it.scoped("says so at once, and every 0.8 s for as long", () =>
    Effect.gen(function*() {
      let isUp = true
      const told = yield* start(() => ({ kind: "redis", isUp, detail: "" }))
      yield* TestClock.adjust("10 seconds")
      const before = told()

      isUp = false
      yield* TestClock.adjust("200 millis")
      const atOnce = told()
      yield* TestClock.adjust(3 * pollMs)
      const later = told()
      isUp = true
      yield* TestClock.adjust("10 seconds")

      assert.deepStrictEqual([before, atOnce, later, told()], [0, 1, 4, 4])
    }))

  it.scoped("has nothing to say where hints cannot be lost", () =>
    Effect.gen(function*() {
      const told = yield* start(() => undefined)

      yield* TestClock.adjust("10 seconds")

      assert.strictEqual(told(), 0)
    }))
})
