/** Queues, events and watchers for tests and measurements of `Signals`. */
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { RunState } from "@orrery/core/RunState"
import { type QueueName, type RunEvent, Signals, type Watched } from "@orrery/core/Signals"
import { Chunk, Effect, Stream } from "effect"

let queues = 0
/** Of its own, so that tests do not hear each other. */
export const sampleQueue = (): QueueName => ({ namespace: "tests", queue: `signals-${process.pid}-${++queues}` })

export const event = (state: RunState = "succeeded"): RunEvent => ({ id: unsafeMakeRunId(Date.now()), state })

/** A watcher that reads when asked to. */
export const openWatch = (name: QueueName, after?: string) =>
  Effect.gen(function*() {
    const signals = yield* Signals
    const stream = yield* signals.watch(name, after === undefined ? {} : { after })
    const pull = yield* Stream.toPull(Stream.rechunk(stream, 1))
    const next: Effect.Effect<Watched> = Effect.map(pull, Chunk.unsafeHead).pipe(
      Effect.timeout("10 seconds"),
      Effect.orDie
    )
    /** The events to come, gaps left out, until there are `count`. */
    const events = (count: number) =>
      Effect.gen(function*() {
        const found: Array<RunEvent> = []
        let cursor = ""
        while (found.length < count) {
          const item = yield* next
          cursor = item.cursor
          if (item._tag === "events") found.push(...item.events)
        }
        return { events: found, cursor }
      })
    return { next, events }
  })
