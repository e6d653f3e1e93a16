import { assert, describe, it } from "@effect/vitest"
import { Orrery, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Effect, Layer, Schema } from "effect"

class TooBig extends Schema.TaggedError<TooBig>()("TooBig", { size: Schema.Number }) {}

const half = Task.make("half", {
  payload: Schema.Struct({ n: Schema.Number }),
  success: Schema.Number,
  error: TooBig,
  retry: RetryPolicy.fixed({ maxAttempts: 3, delay: 1, jitter: 0 })
})
const idle = Task.make("idle", { payload: Schema.Struct({}), queue: "idle" })

const attempts: Array<number> = []
const handlers = half.toLayer(({ n }) => {
  attempts.push(n)
  return n > 100 ? new TooBig({ size: n }) : Effect.succeed(n / 2)
})

describe("Orrery.layerMemory", () => {
  it.scopedLive("executes, retries, answers with typed errors, cancels", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      assert.strictEqual(yield* half.execute({ n: 8 }), 4)

      const error = yield* Effect.flip(half.execute({ n: 101 }))
      assert.instanceOf(error, TooBig)
      assert.deepStrictEqual(attempts.filter((n) => n === 101).length, 3)

      const waiting = yield* idle.enqueue({})
      assert.strictEqual(yield* runs.cancel(waiting), "cancelled")
      assert.strictEqual((yield* runs.awaitFinal(waiting)).state, "cancelled")
      assert.strictEqual(yield* runs.cancel(waiting), "already-final")
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers }))))

  it.scopedLive("drains many runs of many queues with few slots, each once", () =>
    Effect.gen(function*() {
      const seen = new Map<number, number>()
      const tasks = Array.from({ length: 10 }, (_, queue) =>
        Task.make(`count-${queue}`, { payload: Schema.Number, success: Schema.Number, queue: `count-${queue}` }))
      const [first, ...rest] = tasks.map((task) =>
        task.toLayer((n) =>
          Effect.sync(() => {
            seen.set(n, (seen.get(n) ?? 0) + 1)
            return n
          })
        )
      )
      const layer = Orrery.layerMemory({
        handlers: rest.reduce((all, each) =>
          Layer.merge(all, each), first!),
        slots: 3
      })
      yield* Effect.gen(function*() {
        const runs = yield* Runs
        const ids = yield* Effect.forEach(tasks, (task, at) =>
          task.enqueueMany(Array.from({ length: 500 }, (_, n) =>
            at * 500 + n)))
        yield* Effect.forEach(ids.flat(), (id) =>
          runs.awaitFinal(id), { concurrency: 500 })
      }).pipe(Effect.provide(layer))
      assert.strictEqual(seen.size, 5_000)
      assert.isTrue([...seen.values()].every((times) =>
        times === 1
      ))
    }), 30_000)

  it.scopedLive("lets a queue leave memory when it is idle, and brings it back", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* half.enqueue({ n: 2 })
      yield* runs.awaitFinal(id)
      yield* Effect.sleep("1500 millis")
      assert.strictEqual(yield* half.execute({ n: 4 }), 2)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers, passivateAfterMs: 100 }))))
})
