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

const limiterActors = Layer.effect(
  LimitStore,
  Effect.map(OrreryNode.OrreryNode, ({ limitStore }) => limitStore)
).pipe(Layer.provide(node))

limitStoreContract("limiter actors", limiterActors)
