/** How long one poll of a queue takes, by the hints that come. */
import { assert, describe, it } from "@effect/vitest"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import { none, pollMs, type SignalsService, type Watched } from "@orrery/core/Signals"
import * as Watch from "@orrery/core/Watch"
import { newRunId } from "@orrery/testing/storeSamples"
import { Context, Effect, Layer, Stream } from "effect"
import * as Watching from "../src/Watching.js"

const name = { namespace: "default", queue: "polled" }
const gap: Watched = { _tag: "gap", cursor: "2" }

/** Each after so many ms. */
const telling = (items: ReadonlyArray<readonly [number, Watched]>): SignalsService => ({
  ...none,
  watch: () =>
    Effect.succeed(Stream.concat(
      Stream.mapEffect(Stream.fromIterable(items), ([ms, item]) => Effect.delay(Effect.succeed(item), ms)),
      Stream.never
    ))
})

const poll = (items: ReadonlyArray<readonly [number, Watched]>) =>
  Effect.gen(function*() {
    const progress = Context.get(yield* Layer.build(MemoryStore.layer), ProgressStore)
    const sources = { progress, signals: telling(items), find: () => Effect.never, awaitFinal: () => Effect.never }
    const cursor = Watch.queueCursorOf({ since: Date.now(), isBehind: false, hints: "1" })
    const began = performance.now()
    const { changes } = yield* Watching.queueChanges(sources, name, cursor, 5_000)
    return { took: performance.now() - began, tags: changes.map(({ change }) => change._tag) }
  })

describe("a poll of a queue", () => {
  it.scopedLive("that begins with a gap waits, for there may be no hints at all", () =>
    Effect.gen(function*() {
      const { tags, took } = yield* poll([[0, gap]])

      assert.isAtLeast(took, pollMs - 20)
      assert.deepStrictEqual(tags, ["gap"])
    }))

  it.scopedLive("waits no longer once a hint comes", () =>
    Effect.gen(function*() {
      const id = yield* newRunId
      const { tags, took } = yield* poll([[0, gap], [100, {
        _tag: "events",
        events: [{ id, state: "ready" }],
        cursor: "3"
      }]])

      assert.isBelow(took, pollMs - 100)
      assert.deepStrictEqual(tags, ["gap", "state"])
    }))

  it.scopedLive("that is told a gap late answers at once", () =>
    Effect.gen(function*() {
      const { tags, took } = yield* poll([[pollMs + 50, gap]])

      assert.isBelow(took, 2 * pollMs - 100)
      assert.deepStrictEqual(tags, ["gap"])
    }))
})
