import { NodeRuntime } from "@effect/platform-node"
import { Orrery, Task } from "@orrery/orrery"
import { Console, Effect, Schema } from "effect"

const greet = Task.make("greet", {
  payload: Schema.Struct({ name: Schema.String }),
  success: Schema.String
})

const handlers = greet.toLayer(({ name }) => Effect.succeed(`hello ${name}`))

// Durable on this machine. Elsewhere: layerMemory, layerNode, layerClient; the program stays the same.
const orrery = Orrery.layerEmbedded({ dataDir: ".orrery/quick-start", handlers })

const program = greet.execute({ name: "world" }).pipe(Effect.flatMap(Console.log))

NodeRuntime.runMain(Effect.provide(program, orrery))
