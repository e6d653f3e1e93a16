import { assert, describe, it } from "@effect/vitest"
import { type QueueSignal, type RunEvent, Signals } from "@orrery/core/Signals"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { signalsContract } from "@orrery/testing/signalsContract"
import { Context, Effect, Schedule } from "effect"
import { RedisClients } from "../src/RedisClients.js"
import { RedisSignalsCounters } from "../src/RedisSignals.js"
import * as rig from "./redisRig.js"

signalsContract("redis, a user with no right too many", rig.layer())

const until = (what: Effect.Effect<boolean>) =>
  what.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("10 seconds")
  )

/** Once the publisher knows that somebody watches: until then it keeps back what it is given. */
const untilPublished = (signal: QueueSignal, told: RunEvent) =>
  until(Effect.sync(() => {
    let isAsked = false
    signal.publish(() => {
      isAsked = true
      return [told]
    })
    return isAsked
  }))

describe("RedisSignals", () => {
  it.scopedLive("tells watchers in another process, who learn of what was kept back before", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const [publisher, watcher] = [yield* rig.open({ url }), yield* rig.open({ url })]
      const queue = sampleQueue()
      const signal = Context.get(publisher, Signals).queue(queue)
      const counters = Context.get(publisher, RedisSignalsCounters)
      signal.publish(() => [event()])

      const watch = yield* Effect.provide(openWatch(queue), watcher)
      const first = yield* watch.next
      const second = yield* watch.next
      const told = event()
      yield* untilPublished(signal, told)
      const { events } = yield* watch.events(1)

      // One for the rows there are, one for what was not published.
      assert.deepStrictEqual([first._tag, second._tag], ["gap", "gap"])
      assert.deepStrictEqual(events, [told])
      assert.strictEqual(counters().published, 1)
    }))

  it.scopedLive("tells a publisher that comes later who watches", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const watcher = yield* rig.open({ url })
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), watcher)
      yield* watch.next

      const publisher = yield* rig.open({ url })
      const signal = Context.get(publisher, Signals).queue(queue)
      const told = event()
      yield* untilPublished(signal, told)

      assert.deepStrictEqual((yield* watch.events(1)).events, [told])
    }))

  it.scopedLive("is told nothing by messages that are malformed, and no more than a look at Redis by forged ones", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const counters = Context.get(process, RedisSignalsCounters)
      const { commands } = Context.get(process, RedisClients)
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), process)
      yield* watch.next
      const channel = `${rig.prefix}:queue:${queue.namespace}|${queue.queue}`
      const id = event().id
      const malformed = [
        "",
        "1",
        "2 1 1 m",
        `1 1 1 e${id}`,
        `1 1 1 e${id}Q`,
        "1 1 1 e__proto__",
        `1 1 1 ${"m".repeat(20)}`,
        `1 1 1 e${"x".repeat(1_000_000)}`,
        `1 ${"9".repeat(30)} 1 m`
      ]
      for (const message of malformed) yield* admin("PUBLISH", channel, message)
      for (const message of ["", "w1 ", "w1 nothing", "w2 a|b", `w1 ${"a|b ".repeat(500)}`, "w1 __proto__"]) {
        yield* admin("PUBLISH", `${rig.prefix}:control`, message)
      }
      const all = malformed.length + 6
      yield* until(Effect.sync(() => counters().malformed === all))
      const before = commands.health().commands
      const began = performance.now()
      for (let n = 0; n < 200; n++) yield* admin("PUBLISH", channel, `1 7 ${1_000_000 + n} m`)
      const took = performance.now() - began
      const told = event()
      Context.get(process, Signals).queue(queue).publish(() => [told])
      const { events } = yield* watch.events(1)

      assert.deepStrictEqual(events, [told])
      assert.strictEqual(counters().malformed, all)
      // One look in 50 ms, and what else there was to say.
      assert.isBelow(commands.health().commands - before, took / 50 + 30)
    }))

  it.scopedLive("reads from the stream what it did not hear", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const queue = sampleQueue()
      const signal = Context.get(process, Signals).queue(queue)
      const watch = yield* Effect.provide(openWatch(queue), process)
      yield* watch.next
      const events = [event(), event(), event()]
      const { subscriber } = Context.get(process, RedisClients)
      // It is back after 50 ms at the earliest.
      yield* admin("CLIENT", "KILL", "TYPE", "pubsub")
      yield* until(Effect.sync(() => !subscriber.isUp()))
      for (const each of events) signal.publish(() => [each])

      const { events: told } = yield* watch.events(3)

      assert.deepStrictEqual(told, events)
      assert.strictEqual(subscriber.health().connects, 2)
    }))
})
