/** The two connections that hold the shard locks and the membership, apart from all other work. */
import type { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { applicationName, makePool } from "@orrery/store-pg/PgPools"
import { Effect, Layer } from "effect"
import { DatabaseMemory } from "./DatabaseMemory.js"
import { NodeIdentity } from "./NodeIdentity.js"

export const lockConnections = 2
const role = "lock"
/** What `pg_stat_activity` calls the lock sessions of a node. */
export const lockSessionsOf = (nodeId: string): string => applicationName(role, nodeId)

/** Below the refresh interval, so that a dead socket fails the refresh instead of holding it. */
const queryShare = 0.8

export const layer: Layer.Layer<
  SqlClient.SqlClient | PgClient.PgClient,
  never,
  ClusterConfig | NodeConfig | NodeIdentity | DatabaseMemory
> = Layer.unwrapEffect(
  Effect.gen(function*() {
    const cluster = yield* ClusterConfig
    const { databaseUrl } = yield* NodeConfig
    const { nodeId } = yield* NodeIdentity
    const { verifySoon } = yield* DatabaseMemory
    const queryTimeoutMs = Math.floor(cluster.lockRefreshMs * queryShare)
    return PgClient.layerFromPool({
      acquire: makePool({
        role,
        owner: nodeId,
        url: databaseUrl,
        max: lockConnections,
        statementTimeoutMs: queryTimeoutMs,
        queryTimeoutMs,
        idleSessionTimeoutMs: cluster.idleSessionTimeoutMs,
        pipeline: true
      }).pipe(
        // The database may have been away, and another one come back.
        Effect.tap((pool) => Effect.sync(() => pool.on("connect", verifySoon)))
      )
    })
  })
).pipe(Layer.orDie)
