import { assert, describe, it } from "@effect/vitest"
import { LimitStore, type RateRule } from "@orrery/core/LimitStore"
import { Signals } from "@orrery/core/Signals"
import { stepsPerWindow } from "@orrery/core/SlidingWindow"
import { limitName } from "@orrery/testing/limitSamples"
import { limitStoreContract } from "@orrery/testing/limitStoreContract"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { Context, Effect, FastCheck as fc, Schedule } from "effect"
import { randomInt } from "node:crypto"
import { RedisClients } from "../src/RedisClients.js"
import * as RedisScripts from "../src/RedisScripts.js"
import * as rig from "./redisRig.js"

limitStoreContract("redis, a user with no right too many", rig.layer(), "refused for a window")

interface Request {
  readonly pauseMs: number
  readonly min: number
  readonly more: number
  readonly validMs: number
}

const requests: fc.Arbitrary<ReadonlyArray<Request>> = fc.array(
  fc.record({
    pauseMs: fc.constantFrom(0, 0, 0, 1, 5, 40),
    min: fc.integer({ min: 1, max: 8 }),
    more: fc.integer({ min: 0, max: 10 }),
    validMs: fc.integer({ min: 0, max: 30 })
  }),
  { minLength: 20, maxLength: 40 }
)

interface Grant {
  readonly end: number
  readonly granted: number
}

const closedFor = (rule: RateRule, store: Context.Tag.Service<typeof LimitStore>) =>
  Effect.map(store.grant(rule, { min: 1, want: 1, validMs: 0 }), ({ granted, waitMs }) => granted === 0 ? waitMs : 0)

describe.concurrent("RedisLimitStore", () => {
  it.scopedLive("decides as the plain model does, for any history of requests", () =>
    Effect.gen(function*() {
      const { url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const { commands } = Context.get(process, RedisClients)
      const [limit, window] = [20, 100_000]
      const grid = window / stepsPerWindow
      const seed = randomInt(2 ** 31)
      const play = (all: ReadonlyArray<Request>) =>
        Effect.gen(function*() {
          const key = `${rig.prefix}:limit:{${limitName()}}`
          const grants: Array<Grant> = []
          const ask = (min: number, want: number, validMs: number) =>
            RedisScripts.run(commands, RedisScripts.slidingWindow, [key], [
              ...[limit, window, grid, min, want, validMs * 1_000, "", 60_000]
            ])
          const first = yield* ask(1, 1, 0)
          assert.strictEqual(first.granted, 0)
          yield* Effect.sleep(first.waitMs + 1)
          for (const { min, more, pauseMs, validMs } of all) {
            if (pauseMs > 0) yield* Effect.sleep(pauseMs)
            const { at, granted } = yield* ask(min, min + more, validMs)
            const used = (late: number) =>
              grants.reduce((sum, { end, granted }) => end + late > at - window ? sum + granted : sum, 0)
            assert.isAtMost(granted, limit - used(0))
            const rounded = limit - used(grid)
            assert.isAtLeast(granted, rounded >= min ? Math.min(rounded, min + more) : 0)
            if (granted > 0) grants.push({ end: at + validMs * 1_000, granted })
          }
        })
      const histories = fc.sample(requests, { seed, numRuns: 12 })

      yield* Effect.forEach(histories, play, { concurrency: 12, discard: true }).pipe(
        Effect.tapErrorCause(() => Effect.logError(`seed ${seed}`))
      )
    }))

  it.scopedLive("grants nothing for one window when it does not know what was granted before", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const store = Context.get(yield* rig.open({ url }), LimitStore)
      const rule: RateRule = { name: limitName(), limit: 10, perMs: 300, exactness: "strict", burst: 10 }

      const fresh = yield* closedFor(rule, store)
      yield* Effect.sleep(fresh + 2)
      const known = yield* closedFor(rule, store)
      yield* admin("FLUSHALL")
      const flushed = yield* closedFor(rule, store)

      assert.isAbove(fresh, 250)
      assert.strictEqual(known, 0)
      assert.isAbove(flushed, 250)
    }))

  it.scopedLive("gives no permit for one lease after a loss, and lets holders keep theirs", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const store = Context.get(yield* rig.open({ url }), LimitStore)
      const rule = { name: limitName(), limit: 1, leaseMs: 2_500, exactness: "strict" } as const
      const acquired = Effect.repeat(
        Effect.tap(
          store.acquire(rule, "holder"),
          ({ isHeld, waitMs }) => isHeld ? Effect.void : Effect.sleep(waitMs + 2)
        ),
        { until: ({ isHeld }) => isHeld }
      )
      yield* acquired

      yield* admin("FLUSHALL")
      const other = yield* store.acquire(rule, "other")
      const kept = yield* store.renew(rule, "holder")
      yield* Effect.sleep(1_250)
      yield* store.renew(rule, "holder")
      yield* Effect.sleep(1_300)
      const after = yield* store.acquire(rule, "other")
      yield* store.release(rule, "holder")
      const free = yield* store.acquire(rule, "other")

      assert.deepStrictEqual([other.isHeld, kept, after.isHeld, free.isHeld], [false, true, false, true])
    }))

  it.scopedLive("keeps its keys small, however much is asked", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const store = Context.get(yield* rig.open({ url, commandTimeoutMs: 5_000 }), LimitStore)
      const rule: RateRule = { name: limitName(), limit: 100_000, perMs: 200, exactness: "strict", burst: 1 }
      for (let n = 0; n < 40; n++) {
        yield* Effect.forEach(
          Array.from({ length: 20 }),
          (_, at) => store.grant(rule, { min: 1, want: 1, validMs: at * 10 }),
          { concurrency: 20, discard: true }
        )
      }

      const keys = (yield* admin("KEYS", "*")).split("\r\n").filter((line) => line.startsWith(rig.prefix))
      const fields = Number((yield* admin("HLEN", keys[0]!)).replace(":", ""))

      assert.strictEqual(keys.length, 1)
      assert.isBelow(fields, 2 * stepsPerWindow + 5)
    }))
})

describe.concurrent("on a Redis Cluster", () => {
  it.scopedLive("works the same: keys of one call are in one slot", () =>
    Effect.gen(function*() {
      const { admin, server, url } = yield* rig.start({
        settings: ["cluster-enabled yes", "cluster-announce-ip 127.0.0.1"]
      })
      yield* admin("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
      yield* admin("CLUSTER", "INFO").pipe(
        Effect.repeat({ until: (info) => info.includes("cluster_state:ok"), schedule: Schedule.spaced("50 millis") }),
        Effect.timeout("20 seconds")
      )
      const process = yield* rig.open({ url, clusterNodes: `127.0.0.1:${server.port}`, commandTimeoutMs: 5_000 })
      const store = Context.get(process, LimitStore)
      const permit = { name: limitName(), limit: 1, leaseMs: 1_000, exactness: "relaxed" } as const

      const granted = yield* store.grant(
        { name: limitName(), limit: 10, perMs: 1_000, exactness: "relaxed", burst: 5 },
        { min: 1, want: 9, validMs: 100 }
      )
      const queue = sampleQueue()
      const watch = yield* Effect.provide(openWatch(queue), process)
      yield* watch.next
      const told = event()
      Context.get(process, Signals).queue(queue).publish(() => [told])
      const { events } = yield* watch.events(1)
      const held = yield* store.acquire(permit, "a")

      assert.strictEqual(granted.granted, 5)
      assert.isTrue(held.isHeld)
      assert.deepStrictEqual(events, [told])
    }))
})
