import { assert, describe, it } from "@effect/vitest"
import { cancelMany, DeadLetters, deleteMany, Orrery, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Chunk, Effect, Layer, Schema, Stream } from "effect"

class Down extends Schema.TaggedError<Down>()("Down", {}) {}
const options = { error: Down, queue: "bulk", retry: RetryPolicy.none } as const
const work = Task.make("work", { ...options, payload: Schema.Number })
/** The same task with a second version of its payload. */
const work2 = Task.make("work", {
  ...options,
  payload: Task.versions(Schema.Number).next(Schema.Struct({ n: Schema.Number }), (n) => ({ n }))
})
const other = Task.make("other", { payload: Schema.Number, queue: "bulk", idempotencyKey: String })

const handlers = Layer.merge(
  work2.toLayer(({ n }) => n < 0 ? new Down() : Effect.void),
  other.toLayer(() => Effect.void)
)
const layer = Orrery.layerMemory({ handlers })
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => n + from)

const ended = (ids: ReadonlyArray<string>) =>
  Effect.flatMap(
    Runs,
    (runs) =>
      Effect.forEach(ids as ReadonlyArray<never>, (id) => runs.awaitFinal(id), { concurrency: 100, discard: true })
  )

describe("deleteMany", { timeout: 30_000 }, () => {
  it.scopedLive("deletes final runs of the filter, of all versions of a task, and counts first when asked to", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const done = yield* work.enqueueMany(numbers(600))
      const newer = yield* work2.enqueueMany(numbers(100).map((n) => ({ n })))
      const failed = yield* work.enqueueMany(numbers(30, -30))
      const waiting = yield* work.enqueueMany([1, 2], { delay: "1 hour" })
      const kept = yield* other.enqueueMany(numbers(5))
      yield* ended([...done, ...newer, ...failed, ...kept])

      const filter = { queue: "bulk", task: "work" }
      const dry = yield* deleteMany({ filter, dryRun: true })
      const some = yield* deleteMany({ filter: { ...filter, state: "failed" }, limit: 10 })
      const tagged = yield* deleteMany({ filter: { ...filter, tag: "Down" } })
      const none = yield* deleteMany({ filter: { ...filter, until: 0 } })
      const rest = yield* deleteMany({ filter })

      assert.deepInclude(dry, { matched: 730, deleted: 0, isComplete: true })
      assert.strictEqual(dry.sample.length, 10)
      assert.deepStrictEqual(some, { matched: 10, deleted: 10, isComplete: false, sample: [] })
      assert.deepInclude(tagged, { matched: 20, deleted: 20 })
      assert.deepInclude(none, { matched: 0, deleted: 0 })
      assert.deepStrictEqual(rest, { matched: 700, deleted: 700, isComplete: true, sample: [] })
      const left = yield* runs.list({ queue: "bulk", limit: 500 })
      assert.deepStrictEqual(new Set(left.map(({ id }) => id)), new Set([...waiting, ...kept]))
      const gone = yield* Effect.flip(runs.awaitFinal(done[0]!))
      assert.strictEqual(gone._tag, "RunNotFound")
    }).pipe(Effect.provide(layer)))

  it.scopedLive("leaves the keys of what it deletes taken for their windows", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* other.enqueue(7)
      yield* ended([id])

      yield* deleteMany({ filter: { task: "other" } })
      const again = yield* other.enqueueDetailed(7)

      assert.deepStrictEqual(again, { id, isNew: false })
      assert.strictEqual((yield* Effect.flip(runs.get(id)))._tag, "RunNotFound")
    }).pipe(Effect.provide(layer)))

  it.scopedLive("refuses what would delete everything, and what is out of bounds", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const all = yield* Effect.flip(deleteMany({ filter: { state: "failed" } }))
      const none = yield* Effect.flip(deleteMany({ filter: { queue: "bulk" }, limit: 0 }))
      const many = yield* Effect.flip(runs.deleteFinal(numbers(501) as never))

      assert.strictEqual(all.message, "filter must be with a namespace, a queue or a task, got none")
      const odd = yield* Effect.flip(deleteMany({ filter: { task: "work@2" } }))
      assert.strictEqual(odd.message, "task must be 1 to 200 characters of A-Z a-z 0-9 _ . : / -, got work@2")
      assert.strictEqual(none.message, "limit must be 1 to 1000000, got 0")
      assert.strictEqual(many.message, "ids must be at most 500, got 501")
    }).pipe(Effect.provide(layer)))
})

describe("a filter by the name of a task", { timeout: 30_000 }, () => {
  it.scopedLive("holds for all its versions: dead letters, their groups and redrives, and cancelMany", () =>
    Effect.gen(function*() {
      const ids = [...(yield* work.enqueueMany([-1, -2])), ...(yield* work2.enqueueMany([{ n: -3 }]))]
      yield* ended(ids)
      const waits = { delay: "1 hour" } as const
      yield* work.enqueue(1, waits)
      yield* work2.enqueue({ n: 1 }, waits)

      const found = yield* Stream.runCollect(DeadLetters.stream({ task: "work" }))
      const groups = yield* DeadLetters.groups({ task: "work" }, 10)
      // They fail once more, and are dead letters again.
      const filter = { task: "work", until: Date.now() }
      const redriven = yield* DeadLetters.redrive({ filter, perSecond: 1_000, failureRatioMax: 1 })
      const cancelled = yield* cancelMany({ filter: { task: "work", state: "scheduled" } })

      assert.deepStrictEqual(new Set(Chunk.map(found, ({ id }) => id)), new Set(ids))
      assert.deepStrictEqual(new Set(Chunk.map(found, ({ version }) => version)), new Set([undefined, 2]))
      assert.deepStrictEqual(groups.map(({ count, task }) => [count, task]), [[3, "work"]])
      assert.deepInclude(redriven, { matched: 3, redriven: 3 })
      assert.deepInclude(cancelled, { matched: 2, cancelled: 2 })
    }).pipe(Effect.provide(layer)))
})
