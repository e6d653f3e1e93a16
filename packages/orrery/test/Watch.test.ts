import { assert, describe, it } from "@effect/vitest"
import { Orrery, RateLimiter, Runs, Signals, Task } from "@orrery/orrery"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"

const name = { namespace: "default", queue: "watched" }
const limiter = RateLimiter.make("watch-test", { limit: 100, per: "1 second" })
const double = Task.make("double", { payload: Schema.Number, success: Schema.Number, queue: name.queue })
const handlers = double.toLayer((n) => Effect.as(Effect.orDie(limiter.take()), n * 2))

describe("watching a queue", () => {
  it.scopedLive("tells each change after its commit, and handlers have limits", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const told: Array<string> = []
      // As its row says when it is told: what is told is committed.
      const ends = yield* Signals.watch(name).pipe(
        Stream.tap((item) => Effect.sync(() => told.push(item._tag))),
        Stream.flatMap((item) => item._tag === "events" ? Stream.fromIterable(item.events) : Stream.empty),
        Stream.filter(({ state }) => state === "succeeded"),
        Stream.mapEffect(({ id }) => Effect.map(runs.get(id), ({ state }) => [id, state] as const)),
        Stream.take(20),
        Stream.runCollect,
        Effect.fork
      )
      yield* Effect.sleep("20 millis")

      const ids = yield* double.enqueueMany(Array.from({ length: 20 }, (_, n) => n))
      const seen = [...(yield* Effect.timeout(Fiber.join(ends), "10 seconds"))]

      assert.strictEqual(told[0], "gap")
      assert.sameDeepMembers(seen, ids.map((id) => [id, "succeeded"] as const))
    }).pipe(
      Effect.provide(Layer.provideMerge(Orrery.layerMemory({ handlers }), Orrery.layerOneProcess))
    ))
})
