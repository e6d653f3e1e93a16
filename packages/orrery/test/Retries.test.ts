import { assert, describe, it } from "@effect/vitest"
import { Attempt, Orrery, Retry, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Effect, Layer, Schema } from "effect"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}
class Bad extends Schema.TaggedError<Bad>()("Bad", {}) {}

const payload = Schema.String
const soon = (maxAttempts: number) => RetryPolicy.fixed({ maxAttempts, delay: 1, jitter: 0 })
const call = Task.make("call", {
  payload,
  error: Schema.Union(Busy, Bad),
  retry: { default: soon(2), byTag: { Busy: soon(4), Bad: "never" } }
})
const silent = Task.make("silent", { payload, heartbeatTimeout: "900 millis", retry: soon(1) })
const slow = Task.make("slow", { payload, deadline: "1 second", retry: soon(100) })
const idle = Task.make("idle", { payload, queueTtl: "150 millis", queue: "nobody" })

const begun: Array<{ readonly payload: string; readonly attempt: number; readonly at: number }> = []
const note = (payload: string) =>
  Effect.map(Attempt, ({ attempt }) => {
    begun.push({ payload, attempt, at: performance.now() })
    return attempt
  })

const handlers = Layer.mergeAll(
  call.toLayer((what) =>
    Effect.gen(function*() {
      yield* note(what)
      const times = begun.filter((each) => each.payload === what).length
      if (what === "bad") return yield* new Bad()
      if (what === "refused") return yield* Retry.never(new Busy())
      if (what === "limited") return yield* times < 2 ? Retry.after("300 millis", new Busy()) : Effect.void
      if (what === "asleep") return yield* times < 4 ? Retry.snooze("100 millis") : Effect.void
      return yield* new Busy()
    })
  ),
  silent.toLayer((what) =>
    Effect.gen(function*() {
      const attempt = yield* Attempt
      for (let n = 0; n < 4; n++) {
        yield* Effect.sleep("300 millis")
        yield* attempt.heartbeat
      }
      if (what === "falls silent") return yield* Effect.never
    })
  ),
  slow.toLayer((what) => Effect.zipRight(note(what), Effect.never))
)

describe("retries and times", { timeout: 20_000 }, () => {
  it.scopedLive("go by the tag of the error, by what the handler says, and by the clock", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const end = (task: typeof call | typeof silent | typeof slow | typeof idle, what: string) =>
        Effect.gen(function*() {
          const id = yield* task.enqueue(what)
          const run = yield* runs.awaitFinal(id)
          return { state: run.state, tag: run.failure?.tag, attempt: run.attempt }
        })
      const ends = yield* Effect.all({
        busy: end(call, "busy"),
        bad: end(call, "bad"),
        refused: end(call, "refused"),
        limited: end(call, "limited"),
        asleep: end(call, "asleep"),
        alive: end(silent, "alive"),
        fell: end(silent, "falls silent"),
        slow: end(slow, "slow"),
        idle: end(idle, "idle")
      }, { concurrency: "unbounded" })

      assert.deepStrictEqual(ends, {
        busy: { state: "failed", tag: "Busy", attempt: 4 },
        bad: { state: "failed", tag: "Bad", attempt: 1 },
        refused: { state: "failed", tag: "Busy", attempt: 1 },
        limited: { state: "succeeded", tag: undefined, attempt: 2 },
        asleep: { state: "succeeded", tag: undefined, attempt: 1 },
        alive: { state: "succeeded", tag: undefined, attempt: 1 },
        fell: { state: "failed", tag: "HeartbeatTimeout", attempt: 1 },
        slow: { state: "expired", tag: "DeadlineExceeded", attempt: 1 },
        idle: { state: "expired", tag: "QueueTtlExceeded", attempt: 0 }
      })
      const pauses = (what: string) => {
        const times = begun.filter((each) => each.payload === what).map(({ at }) => at)
        return times.slice(1).map((at, index) => at - times[index]!)
      }
      assert.isTrue(pauses("limited").every((ms) => ms >= 299), `${pauses("limited").join()}`)
      assert.isTrue(pauses("asleep").every((ms) => ms >= 99) && pauses("asleep").length === 3)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers, slots: 20 }))))
})
