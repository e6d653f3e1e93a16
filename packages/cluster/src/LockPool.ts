/** The two connections that hold the shard locks and the membership, apart from all other work. */
import type { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { makePool } from "@orrery/store-pg/PgPools"
import { Effect, Layer } from "effect"

export const lockConnections = 2
/** Below the refresh interval, so that a dead socket fails the refresh instead of holding it. */
const queryShare = 0.8

export const layer: Layer.Layer<SqlClient.SqlClient | PgClient.PgClient, never, ClusterConfig | NodeConfig> = Layer.unwrapEffect(
  Effect.gen(function*() {
    const cluster = yield* ClusterConfig
    const { databaseUrl } = yield* NodeConfig
    const queryTimeoutMs = Math.floor(cluster.lockRefreshMs * queryShare)
    return PgClient.layerFromPool({
      acquire: makePool({
        role: "lock",
        url: databaseUrl,
        max: lockConnections,
        statementTimeoutMs: queryTimeoutMs,
        queryTimeoutMs,
        idleSessionTimeoutMs: cluster.idleSessionTimeoutMs,
        pipeline: true
      })
    })
  })
).pipe(Layer.orDie)
