import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import * as RedisConfig from "../src/RedisConfig.js"

const environment = (variables: Readonly<Record<string, string>>) =>
  Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const read = (variables: Readonly<Record<string, string>>) =>
  RedisConfig.RedisConfig.pipe(
    Effect.provide(RedisConfig.layerConfig),
    Effect.provide(environment(variables))
  )

const url = "rediss://node:canary@redis.example:6380/2"

describe("RedisConfig", () => {
  it.effect("reads the environment, with and without the prefix", () =>
    Effect.gen(function*() {
      const own = yield* read({
        ORRERY_REDIS_URL: url,
        ORRERY_REDIS_PREFIX: "blue",
        ORRERY_REDIS_COMMAND_TIMEOUT_MS: "90"
      })
      const shared = yield* read({ REDIS_URL: "redis://127.0.0.1" })

      assert.strictEqual(Redacted.value(own.url), url)
      assert.deepStrictEqual([own.prefix, own.commandTimeoutMs], ["blue", 90])
      assert.strictEqual(Redacted.value(shared.url), "redis://127.0.0.1")
      assert.strictEqual(shared.prefix, RedisConfig.prefixDefault)
    }))

  it.effect("names every setting that is wrong, with what it must be, and shows no secret", () =>
    Effect.gen(function*() {
      const wrong = yield* Effect.flip(read({
        ORRERY_REDIS_URL: "http://node:canary@redis.example",
        ORRERY_REDIS_PREFIX: "with space",
        ORRERY_REDIS_SENTINELS: "nowhere",
        ORRERY_REDIS_COMMANDS_MAX: "0"
      }))
      const both = yield* Effect.flip(read({
        ORRERY_REDIS_URL: url,
        ORRERY_REDIS_SENTINELS: "a:1,b:2",
        ORRERY_REDIS_CLUSTER_NODES: "c:3"
      }))
      const plain = yield* Effect.flip(
        read({ ORRERY_REDIS_URL: "redis://redis.example", ORRERY_REDIS_CA_FILE: "/etc/redis/ca.pem" })
      )

      for (const name of ["REDIS_URL", "REDIS_PREFIX", "REDIS_SENTINELS", "REDIS_COMMANDS_MAX"]) {
        assert.include(wrong.message, `ORRERY_${name}`)
      }
      assert.notInclude(wrong.message, "canary")
      assert.include(both.message, "exclude each other")
      assert.include(plain.message, "nothing would be encrypted")
    }))

  it.effect("knows whether there is a Redis at all", () =>
    Effect.gen(function*() {
      const given = (variables: Readonly<Record<string, string>>) =>
        Effect.provide(
          RedisConfig.isConfigured,
          environment(variables)
        )

      assert.isTrue(yield* given({ ORRERY_REDIS_URL: url }))
      assert.isTrue(yield* given({ REDIS_URL: url }))
      assert.isFalse(yield* given({}))
      assert.isFalse(yield* given({ ORRERY_REDIS_URL: "" }))
    }))
})
