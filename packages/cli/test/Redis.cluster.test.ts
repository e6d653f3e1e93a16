import * as RunsClient from "@orrery/api/RunsClient"
import { Signals } from "@orrery/core/Signals"
import { assert, describe, it } from "@effect/vitest"
import * as Redis from "@orrery/signals-redis/Redis"
import { Context, Effect, Layer, Redacted, Stream } from "effect"
import { fileURLToPath } from "node:url"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as RedisServer from "../../testing/src/RedisServer.js"
import { ticks } from "../../testing/src/rigTasks.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import * as LocalCluster from "../src/LocalCluster.js"
import { orreryHere } from "./orrery.js"

const handlers = fileURLToPath(new URL("../../testing/src/rigHandlers.ts", import.meta.url))
const tick = ticks[0]!

describe("nodes with a Redis", () => {
  it.scopedLive("tell who watches from elsewhere, say how it is, and go on without it", () =>
    Effect.gen(function*() {
      const redis = yield* RedisServer.start({})
      const databaseUrl = yield* TestPostgres.freshDatabase
      const cluster = yield* LocalCluster.start({
        databaseUrl,
        nodes: 1,
        handlers,
        env: { ORRERY_REDIS_URL: Redacted.value(redis.url) }
      })
      const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))
      const elsewhere = Context.get(yield* Layer.build(Redis.layer({ url: redis.url })), Signals)
      const ended = new Set<string>()
      const stream = yield* elsewhere.watch({ namespace: tick.namespace, queue: tick.queue })
      yield* Stream.runForEach(stream, (item) =>
        Effect.sync(() => {
          if (item._tag === "gap") return
          for (const { id, state } of item.events) if (state === "succeeded") ended.add(id)
        })).pipe(Effect.forkScoped)
      const health = Effect.map(
        orreryHere({ ORRERY_NODES: cluster.addresses.join(",") }, "nodes"),
        ({ code, out }) => `${code} ${out}`
      )

      // The first may be what the node keeps to itself, as it does not know of the watcher yet.
      yield* Effect.provide(tick.execute({ n: 0 }), client)
      yield* Effect.sleep("500 millis")
      const ids = yield* Effect.provide(tick.enqueueMany([{ n: 1 }, { n: 2 }, { n: 3 }]), client)
      yield* ClusterRig.eventually(Effect.sync(() => ids.filter((id) => ended.has(id)).length), (all) => all === 3)
      const well = yield* health
      yield* redis.stop("SIGKILL")
      const answer = yield* Effect.provide(tick.execute({ n: 7 }), client)
      const away = yield* ClusterRig.eventually(health, (line) => line.includes("away"))

      assert.strictEqual(answer, 8)
      assert.match(well, /^0 .*redis connected/)
      // It is ready all the same.
      assert.match(away, /^0 .*redis away: /)
    }), 90_000)
})
