import { assert, describe, it } from "@effect/vitest"
import { Orrery, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Attempt } from "@orrery/core/Handlers"
import { Effect, Option, Schema } from "effect"

const Position = Schema.Struct({ page: Schema.Number, at: Schema.Date })
const retry = RetryPolicy.fixed({ maxAttempts: 3, delay: 1, jitter: 0 })

const pages = Task.make("pages", {
  payload: Schema.Struct({ count: Schema.Number, failAt: Schema.Array(Schema.Number) }),
  success: Schema.Array(Schema.Number),
  checkpoint: Position,
  progress: Schema.Struct({ page: Schema.Number, of: Schema.Number }),
  retry
})

const worked: Array<number> = []
const handlers = pages.toLayer(({ count, failAt }, attempt) =>
  Effect.gen(function*() {
    const from = Option.match(attempt.checkpoint, { onNone: () => 0, onSome: ({ page }) => page + 1 })
    const done: Array<number> = []
    for (let page = from; page < count; page++) {
      worked.push(page)
      yield* attempt.log(`page ${page}`)
      yield* attempt.progress({ page, of: count })
      yield* attempt.saveCheckpoint({ page, at: new Date(0) })
      done.push(page)
      if (failAt[attempt.attempt - 1] === page) return yield* Effect.dieMessage("lost")
    }
    return done
  })
)

const wrong = Task.make("wrong", {
  payload: Schema.Literal("progress", "large"),
  checkpoint: Schema.String,
  retry: RetryPolicy.fixed({ maxAttempts: 1, delay: 1, jitter: 0 })
})
const wrongHandlers = wrong.toLayer((what, attempt) =>
  what === "progress" ? attempt.progress(101) : attempt.saveCheckpoint("x".repeat(70_000))
)

const plain = Task.make("plain", { payload: Schema.Void, success: Schema.Unknown, timeout: "1 minute" })
const plainHandlers = plain.toLayer(() =>
  Effect.gen(function*() {
    const attempt = yield* Attempt
    yield* attempt.progress(50)
    yield* attempt.log("half")
    return { deadlineIn: attempt.deadline! - Date.now() }
  })
)

describe("a handler", () => {
  it.scopedLive("goes on where the attempt before had got to, and what it tells can be read after the end", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* pages.enqueue({ count: 5, failAt: [1, 3] })

      const result = yield* pages.result(id)
      const told = yield* runs.progress(id)

      assert.deepStrictEqual(result, [4])
      assert.deepStrictEqual(worked, [0, 1, 2, 3, 4])
      assert.deepStrictEqual(JSON.parse(told!.progress!), { page: 4, of: 5 })
      assert.deepStrictEqual(
        told!.lines.map(({ attempt, text }) => `${attempt} ${text}`),
        ["1 page 0", "1 page 1", "2 page 2", "2 page 3", "3 page 4"]
      )
      assert.isNull(yield* runs.progress(yield* pages.enqueue({ count: 0, failAt: [] })))
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers }))))

  it.scopedLive("that tells what it may not ends as a defect that names the limit", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const [a, b] = yield* wrong.enqueueMany(["progress", "large"])

      const progress = (yield* runs.awaitFinal(a!)).failure
      const large = (yield* runs.awaitFinal(b!)).failure

      assert.match(progress!.message, /progress must be 0 to 100, got 101/)
      assert.match(large!.message, /checkpoint must be at most 65536 bytes, got 70002 bytes/)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers: wrongHandlers }))))

  it.scopedLive("of a task without schemas tells percentages, and knows its deadline", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* plain.enqueue()

      const { deadlineIn } = (yield* plain.result(id)) as { deadlineIn: number }

      const told = yield* runs.progress(id)
      assert.deepStrictEqual([told?.progress, told?.lines[0]?.text], ["50", "half"])
      assert.isTrue(deadlineIn > 50_000 && deadlineIn <= 60_001)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers: plainHandlers }))))
})

const large = Task.make("large", {
  payload: Schema.Number,
  success: Schema.Struct({ at: Schema.Date, text: Schema.String }),
  retry
})
const largeHandlers = large.toLayer((length) => Effect.succeed({ at: new Date(length), text: "x".repeat(length) }))

describe("a result", () => {
  it.scopedLive("comes back through its schema, and is bounded", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const small = yield* large.execute(7)
      const id = yield* large.enqueue(Task.resultBytesMax)
      const error = yield* Effect.flip(large.result(id))

      assert.deepStrictEqual(small, { at: new Date(7), text: "xxxxxxx" })
      assert.strictEqual(error._tag, "RunFailed")
      const { attempt, failure, result, state } = yield* runs.get(id)
      assert.deepStrictEqual([state, attempt, result, failure?.kind, failure?.tag], [
        "failed",
        1,
        null,
        "unencodable",
        "ResultTooLarge"
      ])
      assert.match(failure!.message, /the result is \d+ bytes, the limit is 262144/)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers: largeHandlers }))))
})
