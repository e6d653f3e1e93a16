import { NodeRuntime } from "@effect/platform-node"
import * as OrreryNode from "@orrery/cluster/OrreryNode"
import { Handlers, Task } from "@orrery/core"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Console, Effect, Layer, Schema } from "effect"

const greet = Task.make("greet", {
  payload: Schema.Struct({ name: Schema.String }),
  success: Schema.String
})

const handlers = greet.toLayer(({ name }) => Effect.succeed(`hello ${name}`)).pipe(Layer.provideMerge(Handlers.layer))

const node = Layer.unwrapScoped(
  Effect.map(EmbeddedPostgres.start({ dataDir: ".orrery/quick-start" }), ({ url }) =>
    OrreryNode.layer.pipe(Layer.provide([handlers, NodeConfig.layerAll({ databaseUrl: url })])))
)

const program = greet.execute({ name: "world" }).pipe(Effect.flatMap(Console.log))

NodeRuntime.runMain(Effect.provide(program, node))
