/**
 * Runs in the transactions of the application: an order and the run that charges it are there together or not at all, and so
 * are what the handler books, the mail it asks for, and the success of the run.
 *
 *   node --import tsx packages/examples/src/transactions.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { completeInTransaction, enqueueInTransaction, Orrery, Task, withTransaction } from "@orrery/orrery"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Console, Effect, Layer, Schema } from "effect"

const charge = Task.make("charge", {
  payload: Schema.Struct({ order: Schema.Number }),
  success: Schema.Number,
  queue: "payments"
})
const mail = Task.make("mail", {
  payload: Schema.Struct({ text: Schema.String }),
  success: Schema.String,
  queue: "mail"
})

const handlers = Layer.mergeAll(
  charge.toLayer(({ order }) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return yield* completeInTransaction(
        charge,
        Effect.gen(function*() {
          yield* sql`insert into receipts (order_id) values (${order})`
          yield* enqueueInTransaction(mail, { text: `thank you for order ${order}` })
          return order * 100
        })
      )
    }).pipe(Effect.orDie)
  ),
  mail.toLayer(({ text }) => Effect.as(Console.log(`mail: ${text}`), text))
)

const placeOrder = (order: number, isGood: boolean) =>
  withTransaction(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`insert into orders (id) values (${order})`
    const run = yield* enqueueInTransaction(charge, { order })
    return isGood ? run : yield* Effect.fail("the card is not valid")
  }))

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table if not exists orders (id integer)`
  yield* sql`create table if not exists receipts (order_id integer)`
  yield* sql`truncate orders, receipts`

  const run = yield* placeOrder(1, true)
  const reason = yield* Effect.flip(placeOrder(2, false))

  yield* Console.log(`charged ${yield* charge.result(run)}; order 2: ${String(reason)}`)
  const [counts] = yield* sql`select (select count(*)::integer from orders) as orders,
    (select count(*)::integer from receipts) as receipts`
  yield* Console.log(JSON.stringify(counts))

  // From anything that speaks SQL.
  const [row] = yield* sql<
    { id: typeof run }
  >`select orrery.enqueue('mail', 'mail', '{"text": "from plain SQL"}') as id`
  yield* mail.result(row!.id)
})

const services = Layer.unwrapScoped(
  Effect.map(
    EmbeddedPostgres.start({ dataDir: ".orrery/transactions" }),
    ({ url }) => Orrery.layerNode({ databaseUrl: url, handlers }).pipe(Layer.provideMerge(PgClient.layer({ url })))
  )
)

NodeRuntime.runMain(Effect.provide(program, services))
