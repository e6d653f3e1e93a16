import { assert, describe, it } from "@effect/vitest"
import { Attempt } from "@orrery/core/Handlers"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { attemptContext } from "@orrery/worker/attemptContext"
import { Context, Effect } from "effect"

class Greeting extends Context.Tag("test/Greeting")<Greeting, string>() {}
class Other extends Context.Tag("test/Other")<Other, number>() {}

const runId = unsafeMakeRunId(1_800_000_000_000)
const attempt: Attempt["Type"] = {
  runId,
  attempt: 2,
  fencingToken: "7.2",
  idempotencyKey: runId,
  timeoutMs: 0,
  deadline: undefined,
  heartbeat: Effect.void,
  progress: () => Effect.void,
  log: () => Effect.void,
  notes: { progress: () => undefined, saveCheckpoint: () => Effect.void, loadCheckpoint: Effect.succeedNone }
}
const services = Context.make(Greeting, "hello") as Context.Context<never>

describe("attemptContext", () => {
  it("holds the services of the handler and the attempt, and leaves the former as they were", () => {
    const context = attemptContext(services, attempt) as Context.Context<Attempt | Greeting>

    assert.strictEqual(Context.get(context, Attempt), attempt)
    assert.strictEqual(Context.get(context, Greeting), "hello")
    assert.strictEqual(Context.getOption(context, Other)._tag, "None")
    assert.deepStrictEqual([...context.unsafeMap.keys()], [Greeting.key, Attempt.key])
    assert.strictEqual(context.unsafeMap.size, 2)
    assert.isFalse(services.unsafeMap.has(Attempt.key))
  })

  it("shadows an attempt of an outer handler", () => {
    const outer = attemptContext(services, { ...attempt, attempt: 1 }) as Context.Context<never>
    const context = attemptContext(outer, attempt)

    assert.strictEqual(Context.get(context, Attempt).attempt, 2)
    assert.strictEqual(context.unsafeMap.size, 2)
  })

  it.effect("may be added to, merged and provided like any other", () =>
    Effect.gen(function*() {
      const context = attemptContext(services, attempt) as Context.Context<Attempt | Greeting>
      const read = Effect.all([Attempt, Greeting, Other])

      const added = yield* Effect.provide(read, Context.add(context, Other, 5))
      const merged = yield* Effect.provide(Effect.provideService(read, Other, 6), context)

      assert.deepStrictEqual(added, [attempt, "hello", 5])
      assert.deepStrictEqual(merged, [attempt, "hello", 6])
    }))
})
