/** What happens to Redis, while nodes publish to it and somebody watches. */
import { Signals } from "@orrery/core/Signals"
import * as Redis from "@orrery/signals-redis/Redis"
import { Context, Effect, Layer, Stream } from "effect"
import { queues } from "../chaosTasks.js"
import { until } from "../patience.js"
import type { RedisStage } from "../RedisStage.js"
import type { Scenario, Scene } from "../Scenario.js"
import { inTurn } from "./processes.js"

const goneMs = 5_000
/** A watcher is told at least to look within this, whatever Redis does: a second, and a busy machine. */
const silenceMsMax = 3_000
const cluster = { namespace: "default" }

interface Fault {
  readonly what: string
  readonly apply: (redis: RedisStage) => Effect.Effect<unknown>
  readonly heal: (redis: RedisStage) => Effect.Effect<unknown>
}

const faults: ReadonlyArray<Fault> = [
  { what: "is killed, and replaced by an empty one", apply: (redis) => redis.kill, heal: (redis) => redis.replace },
  { what: "forgets everything", apply: (redis) => redis.admin("FLUSHALL"), heal: () => Effect.void },
  {
    what: "is out of reach without a word",
    apply: ({ proxy }) => Effect.sync(() => proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })),
    heal: ({ proxy }) => Effect.sync(() => proxy.set({ _tag: "pass" }))
  },
  {
    what: "takes no writes (READONLY)",
    apply: (redis) => redis.admin("REPLICAOF", "127.0.0.1", "1"),
    heal: (redis) => redis.admin("REPLICAOF", "NO", "ONE")
  },
  {
    what: "has no memory left (OOM)",
    apply: (redis) => redis.admin("CONFIG", "SET", "maxmemory", "1"),
    heal: (redis) => redis.admin("CONFIG", "SET", "maxmemory", "0")
  },
  {
    what: "takes a second for everything",
    apply: ({ proxy }) => Effect.sync(() => proxy.set({ _tag: "delay", ms: 1_000, jitterMs: 100 })),
    heal: ({ proxy }) => Effect.sync(() => proxy.set({ _tag: "pass" }))
  },
  { what: "forgets its scripts", apply: (redis) => redis.admin("SCRIPT", "FLUSH"), heal: () => Effect.void }
]

/** Hears of one queue, through Redis, as a dashboard would. */
const watching = (scene: Scene, { url }: RedisStage) =>
  Effect.gen(function*() {
    const services = yield* Layer.build(Redis.layer({ url }))
    const stream = yield* Context.get(services, Signals).watch({ ...cluster, queue: queues[0]! })
    const heard = { events: 0, gaps: 0, lastAt: performance.now(), silenceMs: 0 }
    yield* Stream.runForEach(stream, (item) =>
      Effect.sync(() => {
        const now = performance.now()
        heard.silenceMs = Math.max(heard.silenceMs, now - heard.lastAt)
        heard.lastAt = now
        if (item._tag === "gap") heard.gaps += 1
        else heard.events += item.events.length
      })).pipe(Effect.forkScoped)
    yield* until("the watcher hears events", () => heard.events > 0)
    scene.note("heardBefore", heard.events)
    return heard
  })

export const redisGone: Scenario = {
  name: "redis-gone",
  catalogue: "T14",
  what: "Redis is killed, flushed, out of reach, read-only, out of memory, slow, and forgets its scripts",
  setting: { redis: true },
  times: faults.length,
  quickTimes: 3,
  play: (scene) =>
    Effect.gen(function*() {
      const { redis } = scene
      if (redis === undefined) return yield* Effect.dieMessage("the stage has no Redis")
      const heard = yield* watching(scene, redis)
      for (let n = 0; n < scene.times; n++) {
        const { apply, heal, what } = inTurn(faults, n)
        yield* scene.event(`Redis ${what}`, { inject: Effect.zipRight(apply(redis), Effect.sleep(goneMs)) })
        yield* heal(redis)
        yield* scene.healed("Redis is as it should be")
        const before = heard.events
        yield* until("the watcher hears events again", () => heard.events > before)
      }
      scene.note("events heard", heard.events)
      scene.note("gaps told", heard.gaps)
      scene.note("longest silence ms", Math.round(heard.silenceMs))
      if (heard.silenceMs > silenceMsMax) {
        scene.violate({ checker: "signals", what: `a watcher was told nothing for ${Math.round(heard.silenceMs)} ms` })
      }
    })
}
