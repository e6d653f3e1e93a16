/**
 * What Redis may do to us, on real servers. In each case two processes work through a proxy (`faultStand`): nothing may be
 * missed, no window may hold too much, nobody may wait longer than an outage and a second for it.
 */
import { assert, describe, it } from "@effect/vitest"
import { EndStore } from "@orrery/core/EndStore"
import * as RateLimiter from "@orrery/core/RateLimiter"
import { limitName } from "@orrery/testing/limitSamples"
import * as RedisServer from "@orrery/testing/RedisServer"
import { event } from "@orrery/testing/signalSamples"
import { Context, Effect, Redacted, Schedule, type Scope } from "effect"
import { renewMs } from "../src/Interest.js"
import { assertUnharmed, duringFault, type Stand } from "./faultStand.js"
import * as rig from "./redisRig.js"

const faultMs = 1_200
const during = Effect.sleep(faultMs)
const timeout = 90_000
/** Of so few keys the one nearest to its end is found every time. */
const evicting = ["maxmemory 8mb", "maxmemory-policy volatile-ttl", "maxmemory-samples 64"]
/** The promise where neither watchers nor Redis can know that there is something to tell. */
const unheardWithinMs = renewMs + 500

describe.concurrent("faults of Redis", () => {
  const unharmed = (
    name: string,
    fault: (stand: Stand) => Effect.Effect<unknown, unknown, Scope.Scope>,
    server?: RedisServer.RedisServerOptions
  ) =>
    it.scopedLive(
      `bears ${name}`,
      () =>
        Effect.map(duringFault(fault, server === undefined ? {} : { server }), (seen) => assertUnharmed(name, seen)),
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

  it.scopedLive(
    "bears a black hole for one process, whose changes others learn of in their own time",
    () =>
      Effect.gen(function*() {
        const name = "a black hole for one process"
        const seen = yield* duringFault(({ proxy }) =>
          Effect.gen(function*() {
            proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })
            // So long that what is not learnt before it ends is learnt too late.
            yield* Effect.sleep(2 * renewMs)
            proxy.set({ _tag: "pass" })
          }), { isReaderSpared: true })

        assertUnharmed(name, seen, unheardWithinMs)
      }),
    timeout
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
      // Few long naps, not many short ones: on a busy machine each nap takes longer, and the outage must stay what it is said to be.
      const keys = 100
      yield* redis.admin("DEBUG", "POPULATE", String(keys), "filler", "1024")
      yield* redis.admin("CONFIG", "SET", "key-load-delay", String(faultMs * 1_000 / keys))
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

  unharmed("eviction of what it needs, under volatile-ttl", ({ rig: redis }) =>
    Effect.gen(function*() {
      const [key] = (yield* redis.admin("KEYS", `${rig.prefix}:limit:*`)).split("\r\n").filter((line) =>
        line.includes(":")
      )
      // Others fill it with what lives longer than anything of ours.
      let filled = 0
      const fill = Effect.suspend(() =>
        redis.admin("SET", `other:${filled++}`, "x".repeat(256 * 1024), "EX", String(90 * 24 * 3_600))
      )
      yield* Effect.zipRight(fill, redis.admin("EXISTS", key!)).pipe(
        Effect.repeat({ until: (reply) => reply === ":0" }),
        Effect.timeout("20 seconds")
      )
      yield* Effect.forEach(Array.from({ length: filled }), (_, n) => redis.admin("DEL", `other:${n}`))
    }), { settings: evicting })

  it.scopedLive("gives up ends first, under volatile-ttl", () =>
    Effect.gen(function*() {
      const redis = yield* rig.start({ settings: evicting })
      const process = yield* rig.open({ url: redis.url })
      const limiter = RateLimiter.make(limitName(), { limit: 5, per: "1 second", waitMax: "10 seconds" })
      yield* Effect.provide(limiter.take(), process)
      const ends = Context.get(process, EndStore)
      const evicted = Effect.map(redis.admin("INFO", "stats"), (info) => Number(/^evicted_keys:(\d+)/m.exec(info)?.[1]))
      yield* Effect.sync(() => ends.put(event().id, "x".repeat(32 * 1024), 60_000)).pipe(
        Effect.zipRight(evicted),
        Effect.repeat({ until: (count) => count >= 100 }),
        Effect.timeout("20 seconds")
      )

      const left = (yield* redis.admin("KEYS", "*")).split("\r\n").filter((line) => line.includes(":"))
      assert.lengthOf(left.filter((key) => key.startsWith(`${rig.prefix}:limit:`)), 1)
      assert.isAbove(left.length, 10)
    }), timeout)

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
      const process = yield* rig.open({ url: redis.url, commandTimeoutMs: 400 })
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
