import * as RunsClient from "@orrery/api/RunsClient"
import { Runs } from "@orrery/core/Runs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import * as Database from "../src/Database.js"
import * as LocalCluster from "../src/LocalCluster.js"
import { stubborn } from "./fixtures/stubbornHandlers.js"
import { handlersOf } from "./handlersOf.js"
import { orrery, orreryHere } from "./orrery.js"

describe("a node", () => {
  it.scopedLive("is gone in time though a handler and a finalizer hang", () =>
    Effect.gen(function*() {
      const databaseUrl = yield* TestPostgres.freshDatabase
      const shutdownTimeoutMs = 1_000
      const cluster = yield* LocalCluster.start({
        databaseUrl,
        nodes: 1,
        ...handlersOf("stubborn", { ORRERY_SHUTDOWN_TIMEOUT_MS: String(shutdownTimeoutMs) })
      })
      const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))
      yield* Effect.gen(function*() {
        const runs = yield* Runs
        const id = yield* stubborn.enqueue({})
        yield* ClusterRig.eventually(runs.get(id), (run) => run.state === "running")
      }).pipe(Effect.provide(client))
      const node = cluster.nodes[0]!
      const before = performance.now()

      const ended = yield* Effect.zipRight(node.stop, node.ended)

      // 2 s over what it gave itself, and what a busy machine adds; far from the 15 s after which it would be killed.
      assert.isBelow(performance.now() - before, shutdownTimeoutMs + 2_000 + 4_000)
      assert.strictEqual(ended.code, 69)
      assert.include(yield* node.output, "giving up")
    }), 60_000)

  it.scopedLive("tells whether it can do its work, and why not", () =>
    Effect.gen(function*() {
      const databaseUrl = yield* TestPostgres.freshDatabase
      const cluster = yield* LocalCluster.start({ databaseUrl, nodes: 2 })
      yield* ClusterRig.endAtOnce(cluster)
      const env = { ORRERY_NODES: cluster.addresses.join(",") }
      interface Told {
        readonly nodeId: string
        readonly health: { readonly notReady: ReadonlyArray<string>; readonly unaccounted?: number }
      }
      const toldBy = (command: typeof orrery) =>
        Effect.map(command(env, "nodes", "--json"), ({ code, out }) => ({
          code,
          nodes: out.split("\n").map((line) => JSON.parse(line) as Told)
        }))
      const told = toldBy(orreryHere)

      yield* ClusterRig.eventually(told, ({ nodes }) => nodes.length === 2)
      const well = yield* toldBy(orrery)
      assert.strictEqual(well.code, 0)
      assert.deepStrictEqual(well.nodes.map(({ health }) => [health.notReady, health.unaccounted]), [[[], 0], [[], 0]])

      // Its sessions can be opened no more: as a database that is full.
      const url = new URL(Redacted.value(databaseUrl))
      const name = url.pathname.slice(1)
      const admin = yield* TestPostgres.adminUrl
      yield* Database.query(admin, "closing the database", `alter database "${name}" with allow_connections false`)
      yield* Database.query(
        admin,
        "ending sessions",
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
        [name]
      )
      const ill = yield* ClusterRig.eventually(
        told,
        ({ nodes }) =>
          nodes.every(({ health }) => health.notReady.some((reason) => /locks were confirmed/.test(reason)))
      )
      assert.strictEqual(ill.code, 69)
      yield* Database.query(admin, "opening the database", `alter database "${name}" with allow_connections true`)
      const again = yield* ClusterRig.eventually(told, ({ code, nodes }) => code === 0 && nodes.length === 2)
      assert.strictEqual(again.code, 0)
    }), 120_000)

  it.scopedLive(
    "does not start with a failpoint that there is not, nor on a port that another has",
    () =>
      Effect.gen(function*() {
        const databaseUrl = yield* TestPostgres.freshDatabase
        const cluster = yield* LocalCluster.start({ databaseUrl, nodes: 1 })
        yield* ClusterRig.endAtOnce(cluster)
        const env = { ORRERY_DATABASE_URL: Redacted.value(databaseUrl) }
        const { dataAddress, runnerAddress } = yield* cluster.nodes[0]!.ready
        const portOf = (address: string) => address.split(":")[1]!

        const [unknown, sameData, sameRunner] = yield* Effect.all([
          orrery({ ...env, ORRERY_FAILPOINT: "finish" }, "node"),
          orrery({ ...env, ORRERY_DATA_PORT: portOf(dataAddress) }, "node"),
          orrery({ ...env, ORRERY_RUNNER_PORT: portOf(runnerAddress) }, "node")
        ], { concurrency: 3 })

        assert.deepStrictEqual([unknown.code, sameData.code, sameRunner.code], [1, 1, 1])
        assert.match(unknown.err, /ORRERY_FAILPOINT.*finish\.after-commit/)
        for (const refused of [sameData, sameRunner]) assert.match(refused.err, /cannot be used \(EADDRINUSE\)/)
      }),
    60_000
  )
})
