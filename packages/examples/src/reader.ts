/**
 * A process without a node: it knows the database alone. It enqueues with its own transactions, and awaits the results; a cluster
 * somewhere else does the work. With a Redis (`Orrery.layerRedisConfig`) it would hear of the ends at once, and not after 0.8 s.
 *
 *   node --import tsx packages/examples/src/reader.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { enqueueInTransaction, Orrery, Task, withTransaction } from "@orrery/orrery"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Console, Effect, Layer, Schema } from "effect"

const square = Task.make("square", { payload: Schema.Number, success: Schema.Number, queue: "math" })

/** What a web server would do: it holds no connection to the cluster. */
const program = Effect.gen(function*() {
  const ids = yield* withTransaction(Effect.forEach([3, 4, 5], (n) => enqueueInTransaction(square, n)))
  const squares = yield* Effect.forEach(ids, (id) => square.result(id), { concurrency: 3 })
  yield* Console.log(squares.join(" "))

  const refused = yield* Effect.flip(square.enqueue(6))
  yield* Console.log(`${refused._tag}: ${refused.message}`)
})

const main = Effect.gen(function*() {
  const { url } = yield* EmbeddedPostgres.start({ dataDir: ".orrery/example-reader" })
  const cluster = Orrery.layerNode({
    databaseUrl: url,
    handlers: square.toLayer((n) => Effect.succeed(n * n)),
    runnerPort: 0,
    dataPort: 0
  })
  yield* Layer.build(cluster)
  yield* program.pipe(
    Effect.provide(Orrery.layerReader({ databaseUrl: url }).pipe(Layer.provideMerge(PgClient.layer({ url }))))
  )
}).pipe(Effect.scoped)

NodeRuntime.runMain(main)
