/** What is said of the retention of a queue, over restarts and from transactions, through nodes in this process. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, it } from "@effect/vitest"
import { completeInTransaction, Orrery, Queue, Queues, RetryPolicy, Runs, Task } from "@orrery/orrery"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Layer, Schema } from "effect"

const payload = Schema.Struct({ ok: Schema.Boolean })
const retry = RetryPolicy.fixed({ maxAttempts: 1, delay: 1, jitter: 0 })
const mail = Task.make("mail", { payload, queue: "mail", retry })
const booked = Task.make("booked", { payload, queue: "mail", retry })
const other = Task.make("other", { payload, queue: "other", retry })
const end = ({ ok }: typeof payload.Type) => ok ? Effect.void : Effect.dieMessage("no")

const handlers = Layer.mergeAll(
  mail.toLayer(end),
  other.toLayer(end),
  booked.toLayer(() => Effect.orDie(completeInTransaction(booked, Effect.void)))
)

it.scopedLive("holds over restarts, and for what ends in transactions", () =>
  Effect.gen(function*() {
    const databaseUrl = yield* TestPostgres.migratedDatabase
    const client = PgClient.layer({ url: databaseUrl })
    const node = (retention: string) =>
      Layer.provideMerge(Orrery.layerNode({ databaseUrl, handlers, retention }), client)
    /** The periods of what has ended in this life of the node. */
    const endOne = Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const runs = yield* Runs
      const ids = yield* Effect.all([
        mail.enqueue({ ok: true }),
        mail.enqueue({ ok: false }),
        booked.enqueue({ ok: true }),
        other.enqueue({ ok: true }),
        other.enqueue({ ok: false })
      ])
      yield* Effect.forEach(ids, (id) => runs.awaitFinal(id))
      return yield* Effect.forEach(ids, (id) =>
        Effect.map(
          sql<{ days: number }>`select kept_days as days from orrery.run_history where id = ${id}::uuid`,
          ([row]) => row?.days
        ))
    })
    const of = { namespace: "default", queue: "mail", by: "ann" }

    const first = yield* endOne.pipe(
      Effect.tap(() =>
        Effect.flatMap(Queues, (queues) =>
          Effect.zipRight(
            Queue.reconcile([Queue.make("mail", { version: 1, retention: { succeeded: "1 day", failed: "7 days" } })]),
            queues.call({ _tag: "setRetention", ...of, retention: { failed: "forever" } })
          ))
      ),
      Effect.provide(node("failed=90 days"))
    )
    const second = yield* Effect.provide(endOne, node("succeeded=365 days"))

    assert.deepStrictEqual(first, [7, 90, 7, 7, 90])
    assert.deepStrictEqual(second, [1, 0, 1, 365, 30])
  }), 60_000)
