/**
 * Runs that take several slots of their worker, among cheap ones.
 *
 *   node --import tsx packages/examples/src/slots.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

/** A film takes three slots: the memory of three thumbnails. */
const film = Task.make("film", { payload: Schema.Number, queue: "media", slots: 3 })
const thumbnail = Task.make("thumbnail", { payload: Schema.Number, queue: "media" })
/** No worker here is as large. */
const atlas = Task.make("atlas", { payload: Schema.Number, queue: "media", slots: 9 })

let inUse = 0
let most = 0
const order: Array<string> = []
const using = (what: string, slots: number, ms: number) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      inUse += slots
      most = Math.max(most, inUse)
      order.push(what)
    }),
    () => Effect.sleep(ms),
    () => Effect.sync(() => void (inUse -= slots))
  )

const handlers = Layer.mergeAll(
  film.toLayer(() => using("film", 3, 40)),
  thumbnail.toLayer(() => using("thumbnail", 1, 10)),
  atlas.toLayer(() => Effect.void)
)

const program = Effect.gen(function*() {
  const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)
  const first = yield* thumbnail.enqueueMany(numbers(20))
  const films = yield* film.enqueueMany(numbers(3))
  const rest = yield* thumbnail.enqueueMany(numbers(40))
  const large = yield* atlas.enqueue(1)
  yield* Effect.forEach([...first, ...rest], thumbnail.result, { concurrency: 10 })
  yield* Effect.forEach(films, film.result, { concurrency: 10 })

  yield* Console.log(`slots in use: at most ${most} of 4`)
  yield* Console.log(`films began before the last thumbnails: ${order.lastIndexOf("film") < order.length - 1}`)
  const { reason } = yield* atlas.explain(large)
  yield* Console.log(`atlas: ${JSON.stringify(reason)}`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers, slots: 4 })))
