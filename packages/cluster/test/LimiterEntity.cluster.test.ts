import * as LiveNode from "@orrery/api/LiveNode"
import * as RemoteLimits from "@orrery/api/RemoteLimits"
import * as OrreryNode from "@orrery/cluster/OrreryNode"
import * as Handlers from "@orrery/core/Handlers"
import { LimitStore } from "@orrery/core/LimitStore"
import * as NodeConfig from "@orrery/core/NodeConfig"
import { limitStoreContract } from "@orrery/testing/limitStoreContract"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Layer } from "effect"

const node = Layer.unwrapScoped(
  Effect.map(
    TestPostgres.freshDatabase,
    (databaseUrl) => OrreryNode.layer.pipe(Layer.provide([Handlers.layer, NodeConfig.layerAll({ databaseUrl })]))
  )
)

/** The whole way: a connection, a node, the message to the actor. */
const limiterActors = Layer.scoped(
  LimitStore,
  Effect.gen(function*() {
    const { dataAddress } = yield* OrreryNode.OrreryNode
    return RemoteLimits.make(yield* LiveNode.make([dataAddress]))
  })
).pipe(Layer.provide(node))

limitStoreContract("limiter actors, asked over a connection", limiterActors, "granted")
