/**
 * Runs that wait are changed, let go at once, and deleted when they are over.
 *
 *   node --import tsx packages/examples/src/edits.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { deleteMany, Orrery, retryMany, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

const Order = Schema.Struct({ item: Schema.String, pieces: Schema.Number })
const ship = Task.make("ship", { payload: Order, success: Schema.String, queue: "orders" })
const charge = Task.make("charge", {
  payload: Schema.Struct({ cents: Schema.Number }),
  queue: "orders",
  retry: RetryPolicy.fixed({ maxAttempts: 5, delay: "1 hour" })
})

let bankIsUp = false
const handlers = Layer.merge(
  ship.toLayer(({ item, pieces }) => Effect.succeed(`${pieces} x ${item}`)),
  charge.toLayer(() => bankIsUp ? Effect.void : Effect.die("no bank"))
)

const program = Effect.gen(function*() {
  const runs = yield* Runs
  const id = yield* ship.enqueue({ item: "globe", pieces: 1 }, { delay: "1 day" })

  // The customer wants three of them, and now. Checked by the schema of the task.
  yield* ship.edit(id, { payload: { item: "globe", pieces: 3 }, priority: 1 })
  const { state } = yield* ship.edit(id, { delay: 0 })
  yield* Console.log(`${state}: ${yield* ship.result(id)}`)
  const late = yield* Effect.flip(ship.edit(id, { priority: 0 }))
  yield* Console.log(late._tag)

  // The bank was away; when it is back, nobody waits for the hour to be over.
  const charges = yield* charge.enqueueMany([{ cents: 100 }, { cents: 200 }])
  yield* Effect.repeat(Effect.delay(runs.list({ task: "charge", state: "retrying", limit: 10 }), "10 millis"), {
    until: (waiting) => waiting.length === charges.length
  })
  bankIsUp = true
  const { retried } = yield* retryMany({ filter: { task: "charge" } })
  yield* Effect.forEach(charges, charge.result)
  yield* Console.log(`${retried} charged`)

  const filter = { queue: "orders", state: "succeeded" } as const
  const { matched } = yield* deleteMany({ filter, dryRun: true })
  const { deleted } = yield* deleteMany({ filter })
  yield* Console.log(`${matched} over, ${deleted} deleted, ${(yield* runs.list({ limit: 10 })).length} left`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
