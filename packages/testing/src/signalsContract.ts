import { assert, layer } from "@effect/vitest"
import {
  cursorLengthMax,
  eventsMax,
  type QueueName,
  type RunEvent,
  Signals,
  unreadMax,
  type Watched
} from "@orrery/core/Signals"
import { Effect, type Layer } from "effect"
import { event, openWatch, sampleQueue } from "./signalSamples.js"

/** Of a machine that is busy: a safety gap every 5 s, and an answer now and then that comes too late. */
const lossyMax = 5

/**
 * What every adapter of `Signals` must do, and how it tells that something is missing.
 *
 * `losses` counts what the adapter could not be certain of so far: connections lost, answers that did not come, gaps told to be
 * safe. It may tell a gap for each, and for nothing else.
 */
export const signalsContract = <R = never>(
  name: string,
  signals: Layer.Layer<Signals | R, unknown>,
  losses: Effect.Effect<number, never, R> = Effect.succeed(0)
): void =>
  layer(signals, { excludeTestServices: true, timeout: 60_000 })(`Signals contract: ${name}`, (it) => {
    const publish = (queue: QueueName, ...events: ReadonlyArray<RunEvent>) =>
      Effect.map(Signals, (service) => service.queue(queue).publish(() => events))

    it.scoped("begins with a gap, then tells what is published, in order", () =>
      Effect.gen(function*() {
        const queue = sampleQueue()
        const tells = { ...event("running"), isProgress: true } as const
        const events = [event("ready"), event("running"), tells, event("failed")]
        const watch = yield* openWatch(queue)

        const first = yield* watch.next
        for (const each of events) yield* publish(queue, each)
        const told = yield* watch.events(events.length)

        assert.strictEqual(first._tag, "gap")
        assert.deepStrictEqual(told.events, events)
        assert.isAtMost(told.cursor.length, cursorLengthMax)
      }))

    it.scoped("tells every watcher of a queue, and none of another", () =>
      Effect.gen(function*() {
        const [queue, other] = [sampleQueue(), sampleQueue()]
        const watches = yield* Effect.all([openWatch(queue), openWatch(queue), openWatch(other)])
        for (const watch of watches) yield* watch.next
        const [here, there] = [event(), event()]

        yield* publish(queue, here)
        yield* publish(other, there)

        const told = yield* Effect.forEach(watches, (watch) => watch.events(1))
        assert.deepStrictEqual(told.map(({ events }) => events), [[here], [here], [there]])
      }))

    it.scoped("does not even ask for events of a queue that nobody watches", () =>
      Effect.gen(function*() {
        const service = yield* Signals
        let asked = 0

        service.queue(sampleQueue()).publish(() => {
          asked += 1
          return [event()]
        })

        assert.strictEqual(asked, 0)
      }))

    /** What a watch is told that goes on after another, and whether anything was lost meanwhile. */
    const resumed = Effect.scoped(Effect.gen(function*() {
      const before = yield* losses
      const queue = sampleQueue()
      const events = [event(), event(), event()] as const
      const { cursor } = yield* Effect.scoped(Effect.gen(function*() {
        const watch = yield* openWatch(queue)
        yield* watch.next
        yield* publish(queue, events[0])
        return yield* watch.events(1)
      }))
      yield* publish(queue, events[1])
      yield* publish(queue, events[2])

      const watch = yield* openWatch(queue, cursor)
      const told = [yield* watch.next, yield* watch.next]
      return { events, told, isLossless: (yield* losses) === before }
    }))

    it.scoped("goes on after a cursor without a gap, unless something was lost", () =>
      Effect.gen(function*() {
        // What was told while something was lost proves nothing.
        const { events, isLossless, told } = yield* Effect.repeat(resumed, {
          until: ({ isLossless }) => isLossless,
          times: lossyMax
        })

        assert.isTrue(isLossless)
        assert.deepStrictEqual(told.map((item) => item._tag === "events" ? item.events : []), [
          [events[1]],
          [events[2]]
        ])
      }))

    it.scoped("tells a gap after a cursor that is too old, of another, or none at all", () =>
      Effect.gen(function*() {
        const queue = sampleQueue()
        const { cursor } = yield* Effect.scoped(Effect.gen(function*() {
          const watch = yield* openWatch(queue)
          yield* watch.next
          yield* publish(queue, event())
          return yield* watch.events(1)
        }))
        for (let n = 0; n < 3_000; n++) {
          yield* publish(queue, event())
          // As fast as commits may come, and not faster than they can be sent.
          if (n % 100 === 99) yield* Effect.sleep("10 millis")
        }

        const old = yield* openWatch(queue, cursor)
        const elsewhere = yield* openWatch(sampleQueue(), "123456.7")
        const wrong = yield* openWatch(queue, "__proto__; drop table runs")

        // It may be told what is still there before.
        let told = 0
        while ((yield* old.next)._tag !== "gap") told += 1
        assert.isBelow(told, 3_000)
        assert.strictEqual((yield* elsewhere.next)._tag, "gap")
        assert.strictEqual((yield* wrong.next)._tag, "gap")
      }))

    it.scoped(
      "gives a watcher that does not read one gap for all it left, and then goes on",
      () =>
        Effect.gen(function*() {
          const queue = sampleQueue()
          const [slow, quick] = [yield* openWatch(queue), yield* openWatch(queue)]
          yield* slow.next
          yield* quick.next

          // The reader of `slow` has taken one more than it was asked for, at most.
          for (let n = 0; n < unreadMax + 20; n++) {
            const each = event()
            yield* publish(queue, each)
            yield* quick.events(1)
          }
          const items: Array<Watched> = []
          while (!items.some((item) => item._tag === "gap")) items.push(yield* slow.next)
          const last = event()
          yield* publish(queue, last)
          const rest: Array<RunEvent> = []
          while (!rest.some(({ id }) => id === last.id)) rest.push(...(yield* slow.events(1)).events)

          assert.isBelow(items.length, 5)
          assert.isBelow(rest.length, 30)
        }),
      30_000
    )

    it.scoped("tells only that there was a commit when it is too large to tell", () =>
      Effect.gen(function*() {
        const queue = sampleQueue()
        const watch = yield* openWatch(queue)
        yield* watch.next
        const most = Array.from({ length: eventsMax }, () => event())

        yield* publish(queue, ...most)
        const told = yield* watch.next
        yield* publish(queue, ...most, event())
        const tooMany = yield* watch.next

        assert.deepStrictEqual(told._tag === "events" ? told.events : [], most)
        assert.strictEqual(tooMany._tag, "gap")
      }))
  })
