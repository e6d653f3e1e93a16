/**
 * What Redis may do to us, on real servers. In each case two processes work through a proxy: one publishes changes of a
 * store of truth, the other must see each of them, by hint or by reading the store when it is told to; both use a strict
 * limit. Nothing may be missed, no window may hold too much, nobody may wait longer than an outage and a second for it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as TcpProxy from "@orrery/chaos/TcpProxy"
import * as Limits from "@orrery/core/Limits"
import * as RateLimiter from "@orrery/core/RateLimiter"
import type { RunId } from "@orrery/core/RunId"
import { type QueueName, Signals } from "@orrery/core/Signals"
import { limitName, mostInWindow } from "@orrery/testing/limitSamples"
import * as RedisServer from "@orrery/testing/RedisServer"
import { event, sampleQueue } from "@orrery/testing/signalSamples"
import { Chunk, Context, Effect, Exit, Redacted, Schedule, Scope, Stream } from "effect"
import { RedisClients } from "../src/RedisClients.js"
import { RedisSignalsCounters } from "../src/RedisSignals.js"
import * as rig from "./redisRig.js"

const limit = 50
const windowMs = 500
/** Between two changes. */
const pauseMs = 25
/** The promise is a second more than without Redis; a machine that runs tests may be busy. */
const seenWithinMs = 2_500
const faultMs = 1_200

interface Stand {
  readonly rig: rig.Rig
  readonly proxy: TcpProxy.TcpProxy
  /** Where the proxy leads to. */
  readonly target: { port: number }
  readonly isUp: Effect.Effect<void>
}

interface Seen {
  /** From the change to the knowledge of it, ms. */
  readonly latencies: ReadonlyArray<number>
  readonly missed: number
  readonly owed: number
  readonly unanswered: number
  /** Uses of the limit, monotonic, ms. */
  readonly uses: ReadonlyArray<number>
}

const until = (what: () => boolean) =>
  Effect.sync(what).pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("20 seconds"),
    Effect.orDie,
    Effect.asVoid
  )

/** Sees every change of `store`, some later than others. */
const watcher = (queue: QueueName, store: ReadonlyMap<RunId, number>, seen: Map<RunId, number>) =>
  Effect.gen(function*() {
    const signals = yield* Signals
    const see = (id: RunId): void => {
      if (!seen.has(id)) seen.set(id, performance.now())
    }
    yield* Stream.runForEachChunk(yield* signals.watch(queue), (items) =>
      Effect.sync(() => {
        for (const item of Chunk.toReadonlyArray(items)) {
          const ids = item._tag === "gap" ? store.keys() : item.events.map(({ id }) => id)
          for (const id of ids) see(id)
        }
      })).pipe(Effect.forkScoped)
  })

const duringFault = (
  fault: (stand: Stand) => Effect.Effect<unknown, unknown, Scope.Scope>,
  server: RedisServer.RedisServerOptions = {}
): Effect.Effect<Seen, never, Scope.Scope> =>
  Effect.gen(function*() {
    const redis = yield* rig.start(server)
    const target = { host: "127.0.0.1", port: redis.server.port, random: () => 0.5 }
    const proxy = yield* TcpProxy.listen(target)
    const scope = yield* Scope.make()
    const open = Scope.extend(rig.open({ url: redis.urlAt(proxy.port), connectTimeoutMs: 500 }), scope)
    const [publisher, reader] = [yield* open, yield* open]
    const clients = [publisher, reader].map((process) => Context.get(process, RedisClients))
    const isUp = until(() => clients.every(({ health }) => health().every((each) => each.isUp)))
    yield* isUp
    const queue = sampleQueue()
    const [store, seen] = [new Map<RunId, number>(), new Map<RunId, number>()]
    yield* Scope.extend(Effect.provide(watcher(queue, store, seen), reader), scope)
    const signal = Context.get(publisher, Signals).queue(queue)
    const change = Effect.sync(() => {
      const each = event()
      // Committed, then told.
      store.set(each.id, performance.now())
      signal.publish(() => [each])
    })
    yield* Effect.forkIn(Effect.forever(Effect.zipRight(change, Effect.sleep(pauseMs))), scope)
    const limiter = RateLimiter.make(limitName(), { limit, per: windowMs, waitMax: "30 seconds" })
    const uses: Array<number> = []
    const use = Effect.zipRight(limiter.take(), Effect.sync(() => void uses.push(performance.now())))
    for (const process of [publisher, reader, publisher, reader]) {
      yield* Effect.forkIn(Effect.forever(Effect.provide(use, Context.pick(Limits.Limits)(process))), scope)
    }
    yield* until(() => uses.length > 10)

    yield* fault({ rig: redis, proxy, target, isUp })
    yield* isUp
    const before = uses.length
    yield* until(() => uses.length > before + limit)
    const last = [...store.keys()].at(-1)!
    yield* until(() => seen.has(last))
    const counters = Context.get(publisher, RedisSignalsCounters)()
    const unanswered = clients.reduce((sum, { commands }) => sum + commands.health().unanswered, 0)
    // No fiber is stuck.
    yield* Scope.close(scope, Exit.void).pipe(Effect.timeout("5 seconds"))
    const known = [...store].filter(([id]) => id <= last)
    return {
      latencies: known.map(([id, at]) => (seen.get(id) ?? Infinity) - at),
      missed: known.filter(([id]) => !seen.has(id)).length,
      owed: counters.owed,
      unanswered,
      uses
    }
  }).pipe(Effect.orDie)

const assertUnharmed = (name: string, { latencies, missed, owed, unanswered, uses }: Seen) => {
  const longest = Math.max(...latencies)
  // For docs/redis.md.
  if (process.env["REDIS_FAULT_FIGURES"] !== undefined) {
    const gap = Math.max(...uses.map((at, index) => index === 0 ? 0 : at - uses[index - 1]!))
    console.log(
      `${name}: seen after ${Math.round(longest)} ms at most, longest pause of the limit ${Math.round(gap)} ms`
    )
  }
  assert.strictEqual(missed, 0)
  assert.isBelow(longest, seenWithinMs)
  assert.isAtMost(mostInWindow(uses, windowMs), limit)
  assert.isAtMost(owed, 1)
  assert.isBelow(unanswered, 300)
}

const during = Effect.sleep(faultMs)
const timeout = 90_000

describe.concurrent("faults of Redis", () => {
  const unharmed = (
    name: string,
    fault: (stand: Stand) => Effect.Effect<unknown, unknown, Scope.Scope>,
    server?: RedisServer.RedisServerOptions
  ) =>
    it.scopedLive(
      `bears ${name}`,
      () => Effect.map(duringFault(fault, server), (seen) => assertUnharmed(name, seen)),
      timeout
    )

  unharmed("kill -9, and a new one in its place", ({ rig: redis, target }) =>
    Effect.gen(function*() {
      yield* redis.server.stop("SIGKILL")
      yield* during
      const next = yield* RedisServer.start({})
      yield* rig.restrict(next, secretOf(redis.url))
      target.port = next.port
    }))

  unharmed("FLUSHALL", ({ rig: redis }) => Effect.zipRight(redis.admin("FLUSHALL"), during))

  unharmed(
    "a black hole",
    ({ proxy }) =>
      Effect.sync(() => proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })).pipe(
        Effect.zipRight(during),
        Effect.zipRight(Effect.sync(() => proxy.set({ _tag: "pass" })))
      )
  )

  unharmed("being slow, then too slow", ({ proxy }) =>
    Effect.gen(function*() {
      for (const ms of [80, 900]) {
        proxy.set({ _tag: "delay", ms, jitterMs: 20 })
        yield* during
      }
      proxy.set({ _tag: "pass" })
    }))

  unharmed("READONLY", ({ rig: redis }) =>
    redis.admin("REPLICAOF", "127.0.0.1", "1").pipe(
      Effect.zipRight(during),
      Effect.zipRight(redis.admin("REPLICAOF", "NO", "ONE"))
    ))

  unharmed("LOADING", ({ rig: redis }) =>
    Effect.gen(function*() {
      yield* redis.admin("DEBUG", "POPULATE", "3000", "filler")
      yield* redis.admin("CONFIG", "SET", "key-load-delay", "400")
      yield* redis.admin("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
      yield* Effect.fork(Effect.ignore(RedisServer.execute(redis.server.url, "DEBUG", "RELOAD")))
      yield* during
      yield* RedisServer.execute(redis.server.url, "PING").pipe(
        Effect.retry(Schedule.spaced("50 millis")),
        Effect.timeout("10 seconds")
      )
    }), { settings: ["enable-debug-command yes"] })

  unharmed("OOM with noeviction", ({ rig: redis }) =>
    redis.admin("CONFIG", "SET", "maxmemory", "1").pipe(
      Effect.zipRight(during),
      Effect.zipRight(redis.admin("CONFIG", "SET", "maxmemory", "0"))
    ))

  unharmed(
    "SCRIPT FLUSH",
    ({ rig: redis }) =>
      Effect.forEach([1, 2, 3], () => Effect.zipRight(redis.admin("SCRIPT", "FLUSH"), Effect.sleep(faultMs / 3)))
  )

  unharmed("a fail-over to a replica that was behind", ({ proxy, rig: redis, target }) =>
    Effect.gen(function*() {
      const password = Redacted.make(new URL(Redacted.value(redis.server.url)).password)
      const replica = yield* RedisServer.start({
        password,
        settings: [
          `replicaof 127.0.0.1 ${redis.server.port}`,
          `masterauth ${Redacted.value(password)}`,
          "repl-diskless-sync-delay 0"
        ]
      })
      yield* rig.restrict(replica, secretOf(redis.url))
      yield* RedisServer.execute(replica.url, "INFO", "replication").pipe(
        Effect.repeat({
          until: (info) => info.includes("master_link_status:up"),
          schedule: Schedule.spaced("20 millis")
        }),
        Effect.timeout("10 seconds")
      )
      yield* redis.server.stop("SIGKILL")
      yield* during
      yield* RedisServer.execute(replica.url, "REPLICAOF", "NO", "ONE")
      target.port = replica.port
      proxy.set({ _tag: "reset" })
      proxy.set({ _tag: "pass" })
    }))

  it.scopedLive("keeps the limit closed, or for each process alone, as declared", () =>
    Effect.gen(function*() {
      const redis = yield* rig.start()
      const process = yield* rig.open({ url: redis.url })
      yield* redis.server.stop("SIGKILL")
      const make = (whenGone: "closed" | "open") =>
        RateLimiter.make(limitName(), { limit: 5, per: "30 seconds", whenGone, waitMax: "2 seconds" })
      const [closed, open] = [make("closed"), make("open")]
      const count = (limiter: RateLimiter.RateLimiter) =>
        Effect.map(
          Effect.forEach(Array.from({ length: 8 }), () => Effect.either(limiter.take()), { concurrency: 8 }),
          (all) => all.filter((each) => each._tag === "Right").length
        )

      const [none, some] = yield* Effect.provide(Effect.all([count(closed), count(open)], { concurrency: 2 }), process)
      const error = yield* Effect.provide(Effect.flip(closed.take()), process)

      assert.strictEqual(none, 0)
      assert.strictEqual(some, 5)
      assert.strictEqual(error._tag === "LimitNotGranted" ? error.reason : error._tag, "unavailable")
    }), timeout)
})

/** Made for this test alone. */
const secretOf = (url: Redacted.Redacted<string>): string => new URL(Redacted.value(url)).password
