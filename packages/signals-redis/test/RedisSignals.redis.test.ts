import { assert, describe, it } from "@effect/vitest"
import * as TcpProxy from "@orrery/chaos/TcpProxy"
import { pollMs, queueKey, type QueueSignal, type RunEvent, Signals } from "@orrery/core/Signals"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { signalsContract } from "@orrery/testing/signalsContract"
import { timedAwake } from "@orrery/testing/standStill"
import { Context, Effect, Redacted, Schedule } from "effect"
import { question, renewMs } from "../src/Interest.js"
import { RedisClients } from "../src/RedisClients.js"
import { RedisSignalsCounters } from "../src/RedisSignals.js"
import * as SignalFrame from "../src/SignalFrame.js"
import * as rig from "./redisRig.js"

signalsContract("redis, a user with no right too many", rig.layer(), rig.losses)

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

/** Sooner than watchers say so without being asked, ms. */
const soonMs = renewMs / 2

describe.concurrent("RedisSignals", () => {
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
      const [tookMs] = yield* timedAwake(until(Effect.sync(() => counters().failed === 1 && counters().owed === 0)))
      const told = event()
      signal.publish(() => [told])
      const { cursor, events } = yield* watch.events(1)

      assert.strictEqual(first._tag, "gap")
      assert.deepStrictEqual(events, [told])
      yield* until(Effect.sync(() => counters().published === 1))
      // The first one told of what was kept back.
      assert.strictEqual(SignalFrame.positionOf(cursor)?.number, 2)
      assert.isBelow(tookMs, soonMs)
    }))

  it.scopedLive("tells a publisher that comes later who watches", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const watcher = yield* rig.open({ url })
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), watcher)
      yield* watch.next

      // It asks just after the watcher has said so.
      const publisher = yield* rig.open({ url })
      const signal = Context.get(publisher, Signals).queue(queue)
      const told = event()
      const [tookMs] = yield* timedAwake(untilPublished(signal, told))

      assert.deepStrictEqual((yield* watch.events(1)).events, [told])
      assert.isBelow(tookMs, soonMs)
    }))

  it.scopedLive("answers each who asks, also who asks just after another", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const [watcher, asker] = [yield* rig.open({ url }), yield* rig.open({ url })]
      yield* Effect.provide(openWatch(sampleQueue()), watcher)
      const { commands, subscriber } = Context.get(asker, RedisClients)
      const control = `${rig.prefix}:control`
      let answers = 0
      yield* subscriber.subscribe(control, (message) => {
        if (message.toString().startsWith("w1 ")) answers += 1
      })
      const ask = commands.use("publish", (client) => client.publish(control, question))
      const asked = Effect.gen(function*() {
        const before = answers
        yield* ask
        yield* until(Effect.sync(() => answers > before))
      })

      const [tookMs] = yield* timedAwake(Effect.repeatN(asked, 3))

      assert.isBelow(tookMs, soonMs)
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

  it.scopedLive("goes on after a cursor without a gap, however late Redis answers", () =>
    Effect.gen(function*() {
      const { server, urlAt } = yield* rig.start()
      const proxy = yield* TcpProxy.listen({ host: "127.0.0.1", port: server.port, random: () => 0.5 })
      const process = yield* rig.open({ url: urlAt(proxy.port) })
      const counters = Context.get(process, RedisSignalsCounters)
      const queue = sampleQueue()
      const signal = Context.get(process, Signals).queue(queue)
      const events = [event(), event(), event()] as const
      const { cursor } = yield* Effect.scoped(Effect.gen(function*() {
        const watch = yield* Effect.provide(openWatch(queue), process)
        yield* watch.next
        signal.publish(() => [events[0]])
        return yield* watch.events(1)
      }))
      for (const each of events.slice(1)) signal.publish(() => [each])
      yield* until(Effect.sync(() => counters().published === events.length))
      const before = counters()

      // It subscribes, says so and looks: in that time watchers without Redis have been told to look at the rows.
      proxy.set({ _tag: "delay", ms: pollMs / 4, jitterMs: 0 })
      const watch = yield* Effect.provide(openWatch(queue, cursor), process)
      const told: Array<RunEvent> = []
      let gaps = 0
      while (told.length < 2) {
        const item = yield* watch.next
        if (item._tag === "gap") gaps += 1
        else told.push(...item.events)
      }

      const { gaps: forWant, safetyGaps } = counters()
      assert.deepStrictEqual(told, events.slice(1))
      assert.strictEqual(forWant, before.gaps)
      assert.isAtMost(gaps, safetyGaps - before.safetyGaps)
    }))

  it.scopedLive("asks Redis once when a watch begins, also on a queue where much happens", () =>
    Effect.gen(function*() {
      const { server, url, urlAt } = yield* rig.start()
      const proxy = yield* TcpProxy.listen({ host: "127.0.0.1", port: server.port, random: () => 0.5 })
      const [publisher, watcher] = [yield* rig.open({ url }), yield* rig.open({ url: urlAt(proxy.port) })]
      const queue = sampleQueue()
      const signal = Context.get(publisher, Signals).queue(queue)
      // So that it is known to be watched from the beginning.
      yield* Effect.flatMap(Effect.provide(openWatch(queue), publisher), (watch) => watch.next)
      const { commands, subscriber } = Context.get(watcher, RedisClients)
      yield* until(Effect.sync(() => commands.isUp() && subscriber.isUp()))
      // Fewer than are kept while it asks, however long the machine stands still.
      let untold = 0
      const happens = Effect.sync(() => {
        if (untold++ < 40) signal.publish(() => [event()])
      })
      yield* Effect.forkScoped(Effect.forever(Effect.zipRight(happens, Effect.sleep("5 millis"))))
      const before = commands.health().commands

      // Far enough away that something happens while it asks.
      proxy.set({ _tag: "delay", ms: 20, jitterMs: 0 })
      const watch = yield* Effect.provide(openWatch(queue), watcher)
      const since = performance.now()
      for (let told = 0; told < 160;) {
        const item = yield* watch.next
        untold = 0
        if (item._tag === "events") told += item.events.length
      }
      const tookMs = performance.now() - since

      // To say that it watches, to look, and what is said every few seconds. One look after the other would be 16 at least.
      assert.isAtMost(commands.health().commands - before, 8 + 2 * Math.floor(tookMs / renewMs))
    }))

  it.scopedLive("has watchers look at the rows while its channels alone are away", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const { commands, subscriber } = Context.get(process, RedisClients)
      const counters = Context.get(process, RedisSignalsCounters)
      yield* until(Effect.sync(() => commands.isUp() && subscriber.isUp()))
      yield* admin("ACL", "SETUSER", new URL(Redacted.value(url)).username, "-subscribe")
      yield* admin("CLIENT", "KILL", "TYPE", "pubsub")
      yield* until(Effect.sync(() => !subscriber.isUp()))

      const watch = yield* Effect.provide(openWatch(sampleQueue()), process)
      yield* watch.next
      const before = counters().gaps
      yield* until(Effect.sync(() => counters().gaps >= before + 3))

      assert.isTrue(commands.isUp())
      assert.isFalse(subscriber.isUp())
    }))

  it.scopedLive("has watchers look at the rows while others may not be heard", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const { commands, subscriber } = Context.get(process, RedisClients)
      yield* until(Effect.sync(() => commands.isUp() && subscriber.isUp()))
      const watch = yield* Effect.provide(openWatch(sampleQueue()), process)
      yield* watch.next

      // Who knows of it says so again and again: said once, it holds for two looks, of which a late machine misses one.
      const doubt = Effect.sync(() => Context.get(process, Signals).doubt())
      yield* doubt
      const [tookMs, told] = yield* timedAwake(Effect.all([watch.next, watch.next, Effect.zipRight(doubt, watch.next)]))

      assert.deepStrictEqual(told.map((item) => item._tag), ["gap", "gap", "gap"])
      // Otherwise one every 5 s.
      assert.isBelow(tookMs, 2 * pollMs + 1_000)
    }))

  it.scopedLive("reads from the stream what it did not hear", () =>
    Effect.gen(function*() {
      const { server, url, urlAt } = yield* rig.start()
      const proxy = yield* TcpProxy.listen({ host: "127.0.0.1", port: server.port, random: () => 0.5 })
      const reader = yield* rig.open({ url: urlAt(proxy.port) })
      const { subscriber } = Context.get(reader, RedisClients)
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), reader)
      const signal = Context.get(yield* rig.open({ url }), Signals).queue(queue)
      const heard = event()
      yield* untilPublished(signal, heard)
      assert.deepStrictEqual((yield* watch.events(1)).events, [heard])
      const { connects } = subscriber.health()
      const events = [event(), event(), event()]

      proxy.set({ _tag: "reset" })
      yield* until(Effect.sync(() => !subscriber.isUp()))
      for (const each of events) signal.publish(() => [each])
      proxy.set({ _tag: "pass" })
      const { events: told } = yield* watch.events(3)

      assert.deepStrictEqual(told, events)
      assert.isAbove(subscriber.health().connects, connects)
    }))

  it.scopedLive("does not go on at a server that was behind and has given its numbers to others", () =>
    Effect.gen(function*() {
      const [before, behind] = [yield* rig.start(), yield* rig.start()]
      yield* rig.restrict(behind.server, new URL(Redacted.value(before.url)).password)
      const target = { host: "127.0.0.1", port: before.server.port, random: () => 0.5 }
      const proxy = yield* TcpProxy.listen(target)
      const reader = yield* rig.open({ url: before.urlAt(proxy.port) })
      const queue = sampleQueue()
      const key = `${rig.prefix}:queue:{${queueKey(queue)}}:position`
      const watch = yield* Effect.provide(openWatch(queue), reader)
      const signal = Context.get(yield* rig.open({ url: before.url }), Signals).queue(queue)
      yield* untilPublished(signal, event())
      for (let n = 1; n < 5; n++) signal.publish(() => [event()])
      const numberOf = (cursor: string) => SignalFrame.positionOf(cursor)?.number ?? 0
      const field = (server: rig.Rig, name: string) =>
        Effect.map(server.admin("HGET", key, name), (reply) => reply.split("\r\n").at(-1)!)
      const heard = yield* watch.next.pipe(Effect.repeat({ until: ({ cursor }) => numberOf(cursor) >= 5 }))
      const last = Number(yield* field(before, "n"))
      if (numberOf(heard.cursor) < last) {
        yield* watch.next.pipe(Effect.repeat({ until: ({ cursor }) => numberOf(cursor) === last }))
      }

      // It lacks the last three, and gives their numbers, and more, while the watch is away.
      yield* behind.admin("HSET", key, "i", yield* field(before, "i"), "n", String(last - 3))
      const other = yield* rig.open({ url: behind.url })
      yield* Effect.provide(openWatch(queue), other)
      const later = Context.get(other, Signals).queue(queue)
      yield* untilPublished(later, event())
      for (let n = 0; n < 3; n++) later.publish(() => [event()])
      yield* until(Effect.map(field(behind, "n"), (n) => Number(n) > last))
      target.port = behind.server.port
      proxy.set({ _tag: "reset" })
      proxy.set({ _tag: "pass" })

      const first = yield* watch.next.pipe(Effect.repeat({ until: ({ cursor }) => numberOf(cursor) > last }))
      assert.strictEqual(first._tag, "gap")
    }))
})
