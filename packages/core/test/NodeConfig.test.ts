import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as Setting from "@orrery/core/Setting"
import * as WorkerConfig from "@orrery/core/WorkerConfig"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"

const url = "postgres://me:canary-secret@127.0.0.1:5432/orrery"
const withEnv = (env: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env)), { pathDelim: "_" }))

const nodeFrom = (env: Record<string, string>) =>
  NodeConfig.NodeConfig.pipe(Effect.provide(NodeConfig.layerConfig), withEnv(env))
const workerFrom = (env: Record<string, string>) =>
  WorkerConfig.WorkerConfig.pipe(Effect.provide(WorkerConfig.layerConfig), withEnv(env))

describe("NodeConfig", () => {
  it.effect("takes DATABASE_URL when ORRERY_DATABASE_URL is not set, and prefers the latter", () =>
    Effect.gen(function*() {
      const plain = yield* nodeFrom({ DATABASE_URL: url })
      const own = yield* nodeFrom({ DATABASE_URL: "postgres://other/db", ORRERY_DATABASE_URL: url })

      assert.strictEqual(Redacted.value(plain.databaseUrl), url)
      assert.strictEqual(Redacted.value(own.databaseUrl), url)
    }))

  it.effect("names the missing database url, and its second variable", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(nodeFrom({}))

      assert.match(failure.message, /ORRERY_DATABASE_URL or DATABASE_URL \(databaseUrl\) is not set/)
    }))

  it.effect("keeps the database url out of messages, logs and JSON", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(nodeFrom({ DATABASE_URL: "mysql://me:canary-secret@host/db" }))
      const config = yield* nodeFrom({ DATABASE_URL: url })

      assert.notInclude(failure.message, "canary")
      assert.notInclude(JSON.stringify(config), "canary")
      assert.notInclude(JSON.stringify(Setting.printed(NodeConfig.settings, config)), "canary")
    }))

  it.effect("refuses an address other than loopback and says why", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(nodeFrom({ DATABASE_URL: url, ORRERY_HOST: "0.0.0.0" }))

      assert.match(
        failure.message,
        /ORRERY_HOST \(host\) must be a loopback address.*until TLS exists, got "0\.0\.0\.0"/
      )
      for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) assert.isTrue(NodeConfig.isLoopback(host))
      for (const host of ["", "10.0.0.1", "127.0.0.1.example.org", "::"]) assert.isFalse(NodeConfig.isLoopback(host))
    }))

  it.effect("lists the problems of both records in one failure", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(
        Effect.all([NodeConfig.NodeConfig, ClusterConfig.ClusterConfig]).pipe(
          Effect.provide(NodeConfig.layerAllConfig),
          withEnv({ ORRERY_LEASE_MS: "0", ORRERY_WORKER_SLOTS: "-1" })
        )
      )

      assert.deepStrictEqual(
        failure.problems.map((problem) => problem.split(" ")[0]),
        ["ORRERY_LEASE_MS", "ORRERY_DATABASE_URL", "ORRERY_WORKER_SLOTS"]
      )
    }))

  it.effect("refuses a self-watch that is slower than PostgreSQL's", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(
        NodeConfig.NodeConfig.pipe(
          Effect.provide(NodeConfig.layerAll({ databaseUrl: Redacted.make(url), eventLoopLagMaxMs: 3_500 }))
        )
      )

      assert.match(
        failure.message,
        /ORRERY_EVENT_LOOP_LAG_MAX_MS \(3500\) must be below ORRERY_IDLE_SESSION_TIMEOUT_MS/
      )
    }))

  it.effect("gives the same values to a child process through its environment", () =>
    Effect.gen(function*() {
      const config = yield* nodeFrom({ DATABASE_URL: url, ORRERY_WORKER_SLOTS: "3" })

      const child = yield* nodeFrom(Setting.toEnv(NodeConfig.settings, config))

      assert.deepStrictEqual(
        { ...child, databaseUrl: Redacted.value(child.databaseUrl) },
        { ...config, databaseUrl: Redacted.value(config.databaseUrl) }
      )
    }))
})

describe("WorkerConfig", () => {
  it.effect("reads a list of addresses", () =>
    Effect.gen(function*() {
      const config = yield* workerFrom({ ORRERY_NODES: "127.0.0.1:4000, [::1]:4001,localhost:4002" })

      assert.deepStrictEqual(config.nodes, ["127.0.0.1:4000", "[::1]:4001", "localhost:4002"])
    }))

  it.effect("refuses no addresses, and what is none", () =>
    Effect.gen(function*() {
      assert.match((yield* Effect.flip(workerFrom({}))).message, /ORRERY_NODES \(nodes\) is not set/)
      for (const nodes of ["", ",", "localhost", "localhost:0", "localhost:99999", "http://a:1"]) {
        assert.match(
          (yield* Effect.flip(workerFrom({ ORRERY_NODES: nodes }))).message,
          /ORRERY_NODES \(nodes\) must be/
        )
      }
    }))
})
