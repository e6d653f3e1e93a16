/** Watches of runs and queues in one process: with hints, without any, with hints that get lost, and resumed. */
import { assert, describe, it } from "@effect/vitest"
import * as MemorySignals from "@orrery/core/MemorySignals"
import type { RunId } from "@orrery/core/RunId"
import type { RunState } from "@orrery/core/RunState"
import * as Signals from "@orrery/core/Signals"
import { Orrery, RetryPolicy, Runs, Task, Watch } from "@orrery/orrery"
import { Chunk, Effect, Either, Fiber, Layer, Schema, Stream } from "effect"

const name = { namespace: "default", queue: "followed" }

const gates = new Map<string, Effect.Latch>()
const gate = (key: string) => {
  const found = gates.get(key) ?? Effect.unsafeMakeLatch(false)
  gates.set(key, found)
  return found
}

const work = Task.make("work", {
  payload: Schema.Struct({ gate: Schema.String }),
  success: Schema.Date,
  progress: Schema.Struct({ done: Schema.Number }),
  queue: name.queue,
  retry: RetryPolicy.none
})
const handlers = work.toLayer((payload, attempt) =>
  Effect.gen(function*() {
    yield* attempt.progress({ done: 1 })
    yield* attempt.log("one")
    yield* gate(payload.gate).await
    yield* attempt.progress({ done: 2 })
    yield* attempt.log("two")
    return new Date(5)
  })
)

const memory = (signals: Layer.Layer<Signals.Signals>) =>
  Layer.provideMerge(Orrery.layerMemory({ handlers, slots: 50 }), signals)
const withoutHints = memory(Layer.succeed(Signals.Signals, Signals.none))
const withHints = memory(MemorySignals.layer)

const within = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.timeout(effect, "15 seconds")
const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  within(Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray))

/** All that is told of one run, with the cursor taken apart. */
const told = (items: ReadonlyArray<Watch.Watched<Watch.RunChange>>) => {
  const lines = items.flatMap(({ change }) => change._tag === "log" ? change.lines.map(({ text }) => text) : [])
  const progress = items.flatMap(({ change }) => change._tag === "progress" ? [change.progress] : [])
  return { lines, progress, last: items.at(-1)?.change }
}

for (const [kind, layer] of [["with hints", withHints], ["without hints", withoutHints]] as const) {
  describe(`a watch ${kind}`, { timeout: 30_000 }, () => {
    it.scopedLive("follows a run to its end, from anywhere in it", () =>
      Effect.gen(function*() {
        const id = yield* work.enqueue({ gate: kind })
        const early = yield* collect(
          Stream.takeUntil(Watch.run(id), ({ change }) => change._tag === "log")
        )
        const whole = yield* Effect.fork(collect(Watch.run(id)))
        const resumed = yield* Effect.fork(collect(Watch.run(id, { after: early.at(-1)!.cursor })))
        yield* gate(kind).open

        const all = told(yield* Fiber.join(whole))
        const rest = yield* Fiber.join(resumed)
        const typed = yield* collect(Watch.task(work, id))
        const none = yield* collect(Watch.run(id, { after: rest.at(-1)!.cursor }))

        assert.deepStrictEqual(told(early).lines, ["one"])
        assert.deepStrictEqual(all.lines, ["one", "two"])
        assert.deepStrictEqual(all.progress.at(-1), "{\"done\":2}")
        assert.strictEqual(all.last?._tag, "end")
        assert.deepStrictEqual(told(rest).lines, ["two"])
        assert.strictEqual(told(rest).last?._tag, "end")
        assert.deepStrictEqual(none, [])
        const [progress, end] = [typed.find(({ change }) => change._tag === "progress"), typed.at(-1)]
        assert.deepStrictEqual(progress?.change._tag === "progress" ? progress.change.progress : undefined, { done: 2 })
        assert.deepStrictEqual(end?.change._tag === "end" ? end.change.result : undefined, Either.right(new Date(5)))
      }).pipe(Effect.provide(layer)))

    it.scopedLive("tells every end of a queue, also what came while nobody watched", () =>
      Effect.gen(function*() {
        const ids = (count: number) =>
          work.enqueueMany(Array.from({ length: count }, () => ({ gate: `queue ${kind}` })))
        yield* gate(`queue ${kind}`).open
        const isEnd = ({ change }: Watch.Watched<Watch.QueueChange>) => change._tag === "end"
        const begin = yield* collect(Stream.take(Watch.queue(name), 1))

        const first = yield* ids(30)
        const some = yield* collect(
          Stream.take(Stream.filter(Watch.queue(name, { after: begin[0]!.cursor }), isEnd), 10)
        )
        const runs = yield* Runs
        const second = yield* ids(30)
        yield* Effect.forEach(second, (id) => runs.awaitFinal(id), { concurrency: 30 })
        const rest = yield* Stream.runFoldWhile(
          Watch.queue(name, { after: some.at(-1)!.cursor }),
          new Set(some.map(({ change }) => change._tag === "end" ? change.id : "")),
          (ends) => ends.size < 60,
          (ends, { change }) => change._tag === "end" ? ends.add(change.id) : ends
        ).pipe(within)

        assert.strictEqual(begin[0]!.change._tag, "gap")
        assert.sameMembers([...rest], [...first, ...second])
      }).pipe(Effect.provide(layer)))
  })
}

describe("a watch of a queue that is told forged ends", { timeout: 30_000 }, () => {
  const queue = { namespace: "default", queue: "forged" }
  const held = Task.make("held", { payload: Schema.String, queue: queue.queue, retry: RetryPolicy.none })
  const layer = Layer.provideMerge(
    Orrery.layerMemory({ handlers: held.toLayer((key) => Effect.asVoid(gate(key).await)), slots: 50 }),
    MemorySignals.layer
  )

  it.scopedLive("does not tell them, and does not miss the real ones", () =>
    Effect.gen(function*() {
      const signals = yield* Signals.Signals
      const forge = (id: RunId, state: RunState) => signals.queue(queue).publish(() => [{ id, state }])
      const told: Array<Watch.QueueChange> = []
      const [begun, looked, ended] = yield* Effect.all([
        Effect.makeLatch(false),
        Effect.makeLatch(false),
        Effect.makeLatch(false)
      ])
      const last = yield* held.request("none")
      const id = yield* held.enqueue("forged")
      yield* Effect.forkScoped(Stream.runForEach(Watch.queue(queue), ({ change }) =>
        Effect.sync(() => {
          told.push(change)
          begun.unsafeOpen()
          if (change._tag === "end" && change.id === last.id) looked.unsafeOpen()
          if (change._tag === "end" && change.id === id) ended.unsafeOpen()
        })))
      yield* begun.await
      // The first by another that is believed, so that the others have been looked at.
      forge(id, "failed")
      forge(last.id, "cancelled")
      yield* within(looked.await)
      const before = told.filter((each) => each._tag === "end")
      yield* gate("forged").open
      yield* within(ended.await)
      const after = told.filter((each) => each._tag === "end" && each.id === id)

      assert.deepStrictEqual(before, [{ _tag: "end", id: last.id, state: "cancelled", isUnkept: true }])
      assert.deepStrictEqual(after, [{ _tag: "end", id, state: "succeeded" }])
    }).pipe(Effect.provide(layer)))
})

describe("a watch whose hints get lost", { timeout: 30_000 }, () => {
  /** Tells the first item of each watch, and a gap after some time for all that was lost. */
  const lossy = Layer.effect(
    Signals.Signals,
    Effect.map(MemorySignals.make, (real): Signals.SignalsService => ({
      ...real,
      watch: (queue, options) =>
        Effect.map(real.watch(queue, options), (stream) =>
          Stream.merge(
            Stream.filter(stream, (item) => item._tag === "gap"),
            Stream.as(Stream.tick("300 millis"), { _tag: "gap", cursor: "" } as const)
          ))
    }))
  )

  it.scopedLive("reads what it missed from the rows", () =>
    Effect.gen(function*() {
      const begun = yield* Effect.makeLatch(false)
      const watched = yield* Watch.queue(name).pipe(
        Stream.tap(() => begun.open),
        Stream.filter(({ change }) => change._tag === "end"),
        Stream.take(20),
        collect,
        Effect.fork
      )
      yield* begun.await
      yield* gate("lossy").open
      const ids = yield* work.enqueueMany(Array.from({ length: 20 }, () => ({ gate: "lossy" })))

      const ends = yield* Fiber.join(watched)

      assert.sameMembers(ends.map(({ change }) => change._tag === "end" ? change.id : ""), [...ids])
    }).pipe(Effect.provide(memory(lossy))))
})
