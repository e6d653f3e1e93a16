import { assert, describe, it } from "@effect/vitest"
import { DeadLetters, Orrery, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Effect, Layer, Schema, Stream } from "effect"

class Down extends Schema.TaggedError<Down>()("Down", {}) {}

const payload = Schema.Struct({ n: Schema.Number })
const send = Task.make("send", {
  payload,
  success: Schema.Number,
  error: Down,
  retry: RetryPolicy.none,
  concurrency: { key: ({ n }) => `${n % 3}`, limit: 5 }
})
const crash = Task.make("crash", { payload, retry: RetryPolicy.none, queue: "other" })

const setup = () => {
  const world = { isDown: true }
  const handlers = Layer.merge(
    send.toLayer(({ n }) => world.isDown ? new Down() : Effect.succeed(n)),
    crash.toLayer(({ n }) => Effect.die(new TypeError(`no field ${n}`)))
  )
  return { world, layer: Orrery.layerMemory({ handlers }) }
}

const dead = (count: number) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    const ids = yield* send.enqueueMany(Array.from({ length: count }, (_, n) => ({ n })))
    yield* Effect.forEach(ids, runs.awaitFinal, { concurrency: "unbounded" })
    return ids
  })

describe("dead letters", { timeout: 30_000 }, () => {
  it.scopedLive("are made anew once, with their origin, keys and payload, and only if they died", () => {
    const { layer, world } = setup()
    return Effect.gen(function*() {
      const runs = yield* Runs
      const [id] = yield* dead(1)
      world.isDown = false

      const both = yield* Effect.all([runs.redrive(id!), runs.redrive(id!)], { concurrency: "unbounded" })
      const again = yield* runs.redrive(id!)
      const run = yield* runs.awaitFinal(again.id)
      const after = yield* runs.redrive(id!)

      assert.deepStrictEqual(new Set([...both, again, after].map((each) => each.id)).size, 1)
      assert.deepStrictEqual([again.isNew, after.isNew], [false, false])
      assert.deepInclude(run, { state: "succeeded", origin: id!, attempt: 1, payload: `{"n":0}`, result: "0" })
      assert.strictEqual((yield* runs.get(id!)).state, "failed")
      const refused = yield* Effect.flip(runs.redrive(again.id))
      assert.strictEqual(refused._tag, "NotRedrivable")
      assert.include(refused.message, "is succeeded")
    }).pipe(Effect.provide(layer))
  })

  it.scopedLive("are counted, grouped by cause and redriven by filter, none twice", () => {
    const { layer, world } = setup()
    return Effect.gen(function*() {
      const runs = yield* Runs
      yield* dead(30)
      const crashes = yield* crash.enqueueMany(Array.from({ length: 4 }, (_, n) => ({ n })))
      yield* Effect.forEach(crashes, runs.awaitFinal)
      world.isDown = false

      const groups = yield* DeadLetters.groups({}, 1_000)
      const [sent] = groups
      const filter = { fingerprint: sent!.fingerprint }
      const counted = yield* DeadLetters.redrive({ filter, dryRun: true })
      const some = yield* DeadLetters.redrive({ filter, limit: 10, perSecond: 1_000 })
      const rest = yield* DeadLetters.redrive({ filter, canary: 5, perSecond: 1_000 })

      assert.deepStrictEqual(groups.map(({ count, tag, task }) => [task, tag, count]), [
        ["send", "Down", 30],
        ["crash", "TypeError", 4]
      ])
      assert.deepInclude(counted, { matched: 30, redriven: 0, stopped: null })
      assert.deepInclude(some, { matched: 10, redriven: 10, stopped: "limit" })
      assert.deepInclude(rest, { matched: 30, redriven: 20, already: 10, failed: 0, stopped: null })
      const made = yield* runs.list({ task: "send", limit: 500 })
      assert.strictEqual(made.filter(({ origin }) => origin !== undefined).length, 30)
      const others = yield* Stream.runCount(DeadLetters.stream({ tag: "TypeError", until: Date.now() + 60_000 }))
      assert.strictEqual(others, 4)
      assert.strictEqual(yield* Stream.runCount(DeadLetters.stream({ since: Date.now() + 60_000 })), 0)
    }).pipe(Effect.provide(layer))
  })

  it.scopedLive("stop a redrive when the canaries die too, or too many of the others", () => {
    const { layer } = setup()
    return Effect.gen(function*() {
      yield* dead(60)

      const canaries = yield* DeadLetters.redrive({ filter: { task: "send" }, canary: 3, perSecond: 1_000 })
      // Its own failures are dead letters as well by now, and the first to be read.
      const others = yield* DeadLetters.redrive({ filter: { task: "send" }, perSecond: 200, failureRatioMax: 0.2 })
      const never = yield* DeadLetters.redrive({
        filter: { task: "send" },
        limit: 30,
        failureRatioMax: 1,
        perSecond: 500
      })

      assert.deepInclude(canaries, { redriven: 3, failed: 3, stopped: "canaries failed" })
      assert.strictEqual(others.stopped, "too many failed")
      assert.isBelow(others.redriven, 60)
      assert.strictEqual(never.stopped, "limit")
    }).pipe(Effect.provide(layer))
  })

  it.scopedLive("keep to the rate", () => {
    const { layer, world } = setup()
    return Effect.gen(function*() {
      yield* dead(20)
      world.isDown = false
      const before = performance.now()

      yield* DeadLetters.redrive({ filter: {}, perSecond: 50 })

      assert.isAtLeast(performance.now() - before, 19 * 20 - 5)
    }).pipe(Effect.provide(layer))
  })

  it.effect("refuse what is out of bounds, by name", () => {
    const { layer } = setup()
    return Effect.gen(function*() {
      const wrong = [{ perSecond: 0 }, { canary: 1.5 }, { failureRatioMax: 2 }, { limit: 0 }]
      for (const options of wrong) {
        const error = yield* Effect.flip(DeadLetters.redrive({ filter: {}, ...options }))
        assert.include(error.message, `${Object.keys(options)[0]!} must be`)
      }
    }).pipe(Effect.provide(layer))
  })
})
