import { assert, it } from "@effect/vitest"
import { LimitStore } from "@orrery/core/LimitStore"
import { limitName } from "@orrery/testing/limitSamples"
import { Effect, Layer, Metric, Schedule } from "effect"
import * as RedisMetrics from "../src/RedisMetrics.js"
import * as rig from "./redisRig.js"

/** By the end of the name, and the role where there is one. */
const found = Effect.map(Metric.snapshot, (all) => {
  const values = new Map<string, number>()
  for (const { metricKey, metricState } of all) {
    if (!metricKey.name.startsWith("orrery_redis_")) continue
    const name = [metricKey.name.slice("orrery_redis_".length), ...metricKey.tags.map(({ value }) => value)].join(" ")
    const [, value] = Object.entries(metricState).find(([key]) => key === "count" || key === "value") ?? []
    values.set(name, Number(value))
  }
  return values
})

const until = (holds: (values: ReadonlyMap<string, number>) => boolean) =>
  found.pipe(
    Effect.repeat({ until: holds, schedule: Schedule.spaced("20 millis") }),
    Effect.zipRight(found),
    Effect.timeout("10 seconds")
  )

it.scopedLive("what the connections count is there as metrics, while Redis is and when it is not", () =>
  Effect.gen(function*() {
    const { server, url } = yield* rig.start()
    const process = yield* Layer.build(Layer.provideMerge(RedisMetrics.layer, rig.services({ url })))
    const before = yield* until((values) => values.get("up commands") === 1 && values.get("up subscriber") === 1)
    yield* Effect.gen(function*() {
      const limits = yield* LimitStore
      const rule = { name: limitName(), limit: 10, perMs: 100, exactness: "relaxed", burst: 10 } as const
      yield* limits.grant(rule, { min: 1, want: 1, validMs: 1 })
    }).pipe(Effect.provide(process))

    const asked = (values: ReadonlyMap<string, number>) => values.get("commands_total commands") ?? 0
    yield* until((values) => asked(values) > asked(before))
    assert.isAtLeast(before.get("connects_total subscriber")!, 1)

    yield* server.stop("SIGKILL")
    const after = yield* until((values) => values.get("up commands") === 0 && values.get("up subscriber") === 0)
    assert.isTrue(
      ["waiting commands", "unanswered commands", "signals_watches", "signals_owed"].every((name) => after.has(name))
    )
    assert.isAtLeast(after.get("signals_published_total") ?? -1, 0)
  }))
