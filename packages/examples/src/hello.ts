/**
 * A handlers module, as `--handlers` takes it. Try:
 *
 *   npm run orrery -- up --handlers packages/examples/src/hello.ts
 *   npm run orrery -- enqueue hello --payload '{"name":"world"}' --queue hello --nodes HOST:PORT
 */
import { Task } from "@orrery/core"
import { Duration, Effect, Layer, Schema } from "effect"

/** Says hello. */
export const hello = Task.make("hello", {
  payload: Schema.Struct({ name: Schema.String }),
  success: Schema.String,
  queue: "hello"
})

/** Does nothing for a while: something to cancel, or to kill a node under. */
export const sleep = Task.make("sleep", {
  payload: Schema.Struct({ ms: Schema.Int.pipe(Schema.between(0, 3_600_000)) }),
  queue: "hello"
})

export default Layer.merge(
  hello.toLayer(({ name }) => Effect.succeed(`hello ${name}`)),
  sleep.toLayer(({ ms }) => Effect.sleep(Duration.millis(ms)))
)
