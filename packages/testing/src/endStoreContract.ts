import { assert, layer } from "@effect/vitest"
import { EndStore, entryBytesMax } from "@orrery/core/EndStore"
import type { RunId } from "@orrery/core/RunId"
import { Effect, type Layer, Schedule } from "effect"
import { newRunId } from "./storeSamples.js"

/** What every adapter of `EndStore` must do. */
export const endStoreContract = (name: string, store: Layer.Layer<EndStore, unknown>): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`EndStore contract: ${name}`, (it) => {
    const until = (id: RunId, text: string | undefined) =>
      Effect.flatMap(EndStore, (ends) => ends.get(id)).pipe(
        Effect.repeat({ until: (found) => found === text, schedule: Schedule.spaced("5 millis") }),
        Effect.timeout("10 seconds")
      )
    const isUp = Effect.flatMap(EndStore, (ends) =>
      Effect.sync(ends.isUp).pipe(
        Effect.repeat({ until: (up) => up, schedule: Schedule.spaced("5 millis") }),
        Effect.timeout("10 seconds")
      ))

    it.effect("gives back what was put last, of the run that is asked for", () =>
      Effect.gen(function*() {
        const ends = yield* EndStore
        yield* isUp
        const [id, other] = [yield* newRunId, yield* newRunId]
        const text = `{"text":"ä \\" \u0000 𐍈"}`

        ends.put(id, "first", 60_000)
        ends.put(id, text, 60_000)
        yield* until(id, text)

        assert.isUndefined(yield* ends.get(other))
      }))

    it.effect("forgets when the time is over", () =>
      Effect.gen(function*() {
        const ends = yield* EndStore
        yield* isUp
        const [short, long] = [yield* newRunId, yield* newRunId]
        ends.put(long, "long", 60_000)
        ends.put(short, "short", 50)

        yield* until(long, "long")
        yield* until(short, undefined)

        assert.strictEqual(yield* ends.get(long), "long")
      }))

    it.effect("keeps no text that is too large", () =>
      Effect.gen(function*() {
        const ends = yield* EndStore
        yield* isUp
        const [most, more] = [yield* newRunId, yield* newRunId]

        ends.put(more, "x".repeat(entryBytesMax + 1), 60_000)
        ends.put(most, "x".repeat(entryBytesMax), 60_000)
        yield* until(most, "x".repeat(entryBytesMax))

        assert.isUndefined(yield* ends.get(more))
      }))
  })
