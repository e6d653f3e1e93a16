import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"

const fromEnv = (env: Record<string, string>) =>
  ClusterConfig.ClusterConfig.pipe(
    Effect.provide(ClusterConfig.layerConfig),
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env)), { pathDelim: "_" }))
  )

describe("ClusterConfig", () => {
  it.effect("has every default when nothing is set", () =>
    Effect.gen(function*() {
      const config = yield* fromEnv({})

      assert.strictEqual(config.shardsPerGroup, 60)
      assert.strictEqual(config.leaseMs, 10_000)
      assert.strictEqual(config.idleSessionTimeoutMs, 3_500)
    }))

  it.effect("reads variables under ORRERY_", () =>
    Effect.gen(function*() {
      const config = yield* fromEnv({ ORRERY_LEASE_MS: "5000", ORRERY_MAX_CRASHES: "7" })

      assert.strictEqual(config.leaseMs, 5_000)
      assert.strictEqual(config.maxCrashes, 7)
    }))

  it.effect("names every wrong setting in one failure", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(
        fromEnv({ ORRERY_LEASE_MS: "ten", ORRERY_MAX_CRASHES: "0", ORRERY_SHARDS_PER_GROUP: "" })
      )

      assert.strictEqual(failure._tag, "ConfigInvalid")
      assert.deepStrictEqual(failure.problems, [
        "ORRERY_SHARDS_PER_GROUP (shardsPerGroup) must be a whole number of shards, 1 to 10000, got \"\"",
        "ORRERY_LEASE_MS (leaseMs) must be a whole number of ms, 1000 to 3600000, got \"ten\"",
        "ORRERY_MAX_CRASHES (maxCrashes) must be a whole number of crashes, 1 to 1000, got \"0\""
      ])
    }))

  it.effect("refuses values that are wrong together, naming both settings", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(
        fromEnv({ ORRERY_IDLE_SESSION_TIMEOUT_MS: "2100", ORRERY_LOST_WORKER_GRACE_MS: "20000" })
      )

      assert.strictEqual(failure.problems.length, 2)
      assert.match(failure.problems[0]!, /ORRERY_IDLE_SESSION_TIMEOUT_MS \(2100\).*ORRERY_LOCK_REFRESH_MS \(2000\)/)
      assert.match(failure.problems[1]!, /ORRERY_LOST_WORKER_GRACE_MS \(20000\).*ORRERY_LEASE_MS \(10000\)/)
    }))

  it.effect("checks values given in code alike", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(
        ClusterConfig.ClusterConfig.pipe(Effect.provide(ClusterConfig.layer({ leaseMs: 1.5 })))
      )

      assert.match(failure.message, /^wrong configuration: ORRERY_LEASE_MS \(leaseMs\) must be .*, got 1\.5$/)
    }))
})
