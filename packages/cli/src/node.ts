/** `orrery node`: one cluster node in this process. */
import { Command } from "@effect/cli"
import * as OrreryNode from "@orrery/cluster/OrreryNode"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as Setting from "@orrery/core/Setting"
import * as Redis from "@orrery/signals-redis/Redis"
import { Effect, Layer } from "effect"
import * as HandlersModule from "./handlersModule.js"
import * as options from "./options.js"
import * as supervised from "./supervised.js"

const serve = Effect.gen(function*() {
  const config = yield* NodeConfig.NodeConfig
  const cluster = yield* ClusterConfig.ClusterConfig
  const node = yield* OrreryNode.OrreryNode
  yield* Effect.logInfo("node started").pipe(
    Effect.annotateLogs({
      ...Setting.printed(ClusterConfig.settings, cluster),
      ...Setting.printed(NodeConfig.settings, config)
    }),
    Effect.annotateLogs({ nodeId: node.nodeId })
  )
  yield* supervised.printReady({
    nodeId: node.nodeId,
    dataAddress: node.dataAddress,
    runnerAddress: node.runnerAddress
  })
  // What a fenced node would still hand over is not its own any more: it does not linger.
  return yield* Effect.tapErrorCause(node.fatal, () => supervised.endSoon)
})

export const command = Command.make("node", { handlers: options.handlers }, ({ handlers }) =>
  Effect.gen(function*() {
    yield* supervised.begin
    yield* supervised.armFailpoint
    const config = yield* NodeConfig.NodeConfig
    yield* supervised.hardEndAfter(config.shutdownTimeoutMs)
    const node = Layer.provide(OrreryNode.layer, LimitKeeper.joining(HandlersModule.layer(handlers)))
    // For the handlers too: they may use limits.
    return yield* Effect.provide(serve, Layer.provide(node, Redis.layerConfig))
  }).pipe(Effect.provide(NodeConfig.layerAllConfig))).pipe(
    Command.withDescription(
      "Run one node of a cluster in this process, configured by the environment (docs/configuration.md). "
        + "Prints one JSON line when it is ready; logs go to standard error. SIGTERM drains it."
    )
  )
