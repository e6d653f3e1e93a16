/** Connections to the data planes of other nodes: one each, opened when needed, dropped when lost or idle. */
import { connect, type NodeConnection } from "@orrery/api/NodeConnection"
import type { ClusterUnavailable } from "@orrery/core/Errors"
import { Context, Effect, Layer, RcMap, type Scope } from "effect"

export class Peers extends Context.Tag("@orrery/cluster/Peers")<Peers, {
  readonly connection: (address: string) => Effect.Effect<NodeConnection, ClusterUnavailable, Scope.Scope>
}>() {}

const idleTime = "30 seconds"

export const layer = Layer.scoped(
  Peers,
  Effect.gen(function*() {
    const connections = yield* RcMap.make({
      lookup: (address: string) => connect(address, { openTimeout: "1 second" }),
      idleTimeToLive: idleTime
    })
    return Peers.of({
      connection: (address) =>
        Effect.gen(function*() {
          const connection = yield* RcMap.get(connections, address).pipe(
            Effect.tapError(() => RcMap.invalidate(connections, address))
          )
          if (connection.isOpen()) return connection
          yield* RcMap.invalidate(connections, address)
          return yield* RcMap.get(connections, address)
        })
    })
  })
)
