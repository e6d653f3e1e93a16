import { assert, describe, it } from "@effect/vitest"
import { runIdMadeAt } from "@orrery/testing/storeSamples"
import { Effect, Redacted, TestClock } from "effect"
import * as EndCache from "../src/EndCache.js"
import { type EndStoreService, entryBytesMax } from "../src/EndStore.js"
import type { Run } from "../src/Run.js"
import type { RunId } from "../src/RunId.js"

const keyOf = (text: string) => Redacted.make(Buffer.alloc(32, text))
const key = keyOf("key of the database")

const runOf = (fields: Partial<Run> = {}): Run => ({
  id: runIdMadeAt(0),
  namespace: "default",
  queue: "images",
  partition: 0,
  task: "render",
  state: "succeeded",
  priority: 5,
  createdAt: 1.5,
  scheduledAt: 1.5,
  startedAt: 2,
  finishedAt: 3,
  attempt: 1,
  payload: `~1.k.sealed`,
  result: `{"a":"ä"}`,
  failure: null,
  worker: "w",
  waitsFor: null,
  ...fields
})

/** One that shows what it is given, and can be told what to say. */
const openStore = () => {
  const texts = new Map<RunId, string>()
  let asked = 0
  const store: EndStoreService = {
    put: (id, text) => void texts.set(id, text),
    get: (id) =>
      Effect.sync(() => {
        asked += 1
        return texts.get(id)
      }),
    isUp: () => true
  }
  return { store, texts, asked: () => asked }
}

describe("EndCache", () => {
  it.effect("gives back the run as it was read, to whoever knows the key", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const { store, texts } = openStore()
      const [one, other] = [yield* EndCache.make(store, key), yield* EndCache.make(store, key)]
      const failure = { kind: "failure", tag: "Bounced", message: "no", error: "{}" } as const
      const runs = [runOf(), runOf({ state: "failed", result: null, failure, origin: runIdMadeAt(0), version: 3 })]

      for (const run of runs) one.keep(run)
      const found = yield* Effect.forEach(runs, (run) => other.find(run.id))
      const none = yield* other.find(runIdMadeAt(0))

      assert.deepStrictEqual(found, runs)
      assert.isUndefined(none)
      assert.include(texts.get(runs[0]!.id), "~1.k.sealed")
      assert.deepStrictEqual(other.counters(), { hits: 2, misses: 1, refused: 0, kept: 0, over: 0 })
    }))

  it.effect("keeps no run that has not ended, and none that is too large", () =>
    Effect.gen(function*() {
      const { store, texts } = openStore()
      const ends = yield* EndCache.make(store, key)

      for (const state of ["ready", "running", "retrying", "scheduled", "blocked"] as const) ends.keep(runOf({ state }))
      ends.keep(runOf({ payload: "x".repeat(entryBytesMax) }))
      ends.keep(runOf({ result: "ä".repeat(entryBytesMax / 2) }))

      assert.strictEqual(texts.size, 0)
      assert.strictEqual(ends.counters().over, 2)
    }))

  it.effect("believes no entry that is forged, of another run, of another key, cut, or changed anywhere", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const { store, texts } = openStore()
      const ends = yield* EndCache.make(store, key)
      const stranger = yield* EndCache.make(store, keyOf("another key"))
      const [run, other] = [runOf(), runOf({ result: "other" })]
      ends.keep(run)
      ends.keep(other)
      const genuine = texts.get(run.id)!
      stranger.keep(run)
      const foreign = texts.get(run.id)!
      const body = genuine.slice(genuine.indexOf("{"))
      const changed = Array.from(
        { length: genuine.length },
        (_, at) => genuine.slice(0, at) + (genuine[at] === "x" ? "y" : "x") + genuine.slice(at + 1)
      )
      const forged = [
        "",
        "1",
        "1.",
        `1..${body}`,
        `2${genuine.slice(1)}`,
        `1.${"A".repeat(43)}.${body}`,
        genuine.slice(0, -1),
        `${genuine} `,
        genuine.replace("succeeded", "failed"),
        texts.get(other.id)!,
        foreign,
        "x".repeat(10 * entryBytesMax),
        "\u0000\ufffd".repeat(100),
        ...changed
      ]

      const believed: Array<string> = []
      for (const text of forged) {
        texts.set(run.id, text)
        const found = yield* ends.find(run.id)
        // Two bits of the last character of the code mean nothing.
        if (found !== undefined) assert.deepStrictEqual(found, run)
        if (found !== undefined) believed.push(text)
      }
      texts.set(run.id, genuine)

      assert.isAtMost(believed.length, 1)
      assert.deepStrictEqual(yield* ends.find(run.id), run)
      assert.strictEqual(ends.counters().refused, forged.length - believed.length)
    }))

  it.effect("does not ask for a run that was made just now, nor where there is nobody to ask", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const now = 3_600_000
      const { asked, store } = openStore()
      const ends = yield* EndCache.make(store, key)
      const away = yield* EndCache.make({ ...store, isUp: () => false }, key)

      yield* ends.find(runIdMadeAt(now - EndCache.freshMs + 50))
      yield* away.find(runIdMadeAt(0))
      const none = asked()
      yield* TestClock.adjust(EndCache.freshMs)
      yield* ends.find(runIdMadeAt(now))

      assert.deepStrictEqual([none, asked()], [0, 1])
    }))

  it.effect("keeps so many bytes in so long, and goes on after it", () =>
    Effect.gen(function*() {
      const { store, texts } = openStore()
      const ends = yield* EndCache.make(store, key)
      const payload = "x".repeat(entryBytesMax - 1_000)
      const keepAll = () => {
        for (let bytes = 0; bytes < 2 * EndCache.bytesPerTtl; bytes += payload.length) ends.keep(runOf({ payload }))
      }

      keepAll()
      const first = texts.size
      yield* TestClock.adjust(EndCache.ttlMs)
      keepAll()

      assert.isAtMost(first * payload.length, EndCache.bytesPerTtl)
      assert.isAtLeast((first + 2) * payload.length, EndCache.bytesPerTtl - entryBytesMax)
      assert.strictEqual(texts.size, 2 * first)
      assert.strictEqual(ends.counters().kept, 2 * first)
    }))
})
