/** Enqueue and completion in transactions of the application, through a node of its own in this process. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import {
  Attempt,
  completeInTransaction,
  enqueueInTransaction,
  enqueueManyInTransaction,
  Orrery,
  RetryPolicy,
  Runs,
  Task,
  withTransaction
} from "@orrery/orrery"
import type { RunId } from "@orrery/core/RunId"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import { Effect, Layer, Option, Redacted, Schema } from "effect"
import { randomBytes } from "node:crypto"

const payload = Schema.Struct({ n: Schema.Number })
const retry = RetryPolicy.fixed({ maxAttempts: 3, delay: 1, jitter: 0 })
const echo = Task.make("echo", { payload, success: Schema.Number, queue: "echo" })
const spread = Task.make("spread", { payload, success: Schema.Number, queue: "spread" })
/** Two unfinished at most. */
const once = Task.make("once", { payload, success: Schema.Number, queue: "once", maxDepth: 2 })
const book = Task.make("book", { payload, success: Schema.Number, queue: "book", retry })

const traced = Task.make("traced", { payload: Schema.Void, success: Schema.String, queue: "traced" })

const handlers = Layer.mergeAll(
  traced.toLayer(() =>
    Effect.map(
      Effect.option(Effect.currentSpan),
      Option.match({
        onNone: () => "no span",
        onSome: ({ traceId }) => traceId
      })
    )
  ),
  echo.toLayer(({ n }) => Effect.succeed(n)),
  once.toLayer(({ n }) => Effect.as(Effect.sleep("10 millis"), n)),
  spread.toLayer(({ n }) => Effect.succeed(n)),
  book.toLayer(({ n }) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { attempt } = yield* Attempt
      yield* completeInTransaction(
        book,
        Effect.gen(function*() {
          yield* sql`insert into booked (n, attempt) values (${n}, ${attempt})`
          yield* enqueueInTransaction(echo, { n })
          // The first one fails inside, the others after the commit: their outcome no longer counts.
          return attempt === 1 ? yield* Effect.dieMessage("inside") : n
        })
      )
      return yield* Effect.dieMessage("after the commit")
    }).pipe(Effect.catchAll((error) => Effect.die(error)))
  )
)

const node = Layer.unwrapScoped(
  Effect.map(
    TestPostgres.migratedDatabase,
    (databaseUrl) =>
      Orrery.layerNode({ databaseUrl, handlers, cluster: { queuePartitions: "spread=3" } }).pipe(
        Layer.provideMerge(PgClient.layer({ url: databaseUrl }))
      )
  )
)

const canary = "canary-4111"
const pay = Task.make("pay", { payload: Schema.String, success: Schema.String, queue: "pay" })
const receipt = Task.make("receipt", { payload: Schema.String, success: Schema.String, queue: "receipt" })
const coded = Layer.unwrapScoped(
  Effect.map(TestPostgres.migratedDatabase, (databaseUrl) =>
    Orrery.layerNode({
      databaseUrl,
      codec: PayloadCodec.make({
        encrypt: { key: "k", keys: { k: Redacted.make(randomBytes(32).toString("base64")) } }
      }),
      handlers: Layer.merge(
        pay.toLayer((card) =>
          completeInTransaction(pay, Effect.as(enqueueInTransaction(receipt, `for ${card}`), `paid ${card}`)).pipe(
            Effect.orDie
          )
        ),
        receipt.toLayer((text) => Effect.succeed(text))
      )
    }).pipe(Layer.provideMerge(PgClient.layer({ url: databaseUrl }))))
)

layer(coded, { excludeTestServices: true, timeout: 60_000 })("transactions of a program with a codec", (it) => {
  it.effect("need not be told of it", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const sql = yield* SqlClient.SqlClient
      const id = yield* withTransaction(enqueueInTransaction(pay, canary))

      assert.strictEqual(yield* pay.result(id), `paid ${canary}`)
      const [child] = yield* Effect.repeat(runs.list({ task: "receipt", limit: 1 }), {
        until: (found) => found.length === 1
      })
      assert.strictEqual(yield* receipt.result(child!.id), `for ${canary}`)
      const rows = yield* sql`select payload, result from orrery.run_history`
      assert.strictEqual(rows.length, 2)
      assert.notInclude(JSON.stringify(rows), canary)
      assert.match(String(rows[0]!["payload"]), /^~e1:k:r:/)
    }))
})

layer(node, { excludeTestServices: true, timeout: 60_000 })("transactions", (it) => {
  const numbers = Array.from({ length: 300 }, (_, n) => n)

  it.effect("enqueue runs that go on in the span of their transaction, and have none outside of one", () =>
    Effect.gen(function*() {
      const [id, traceId] = yield* withTransaction(
        Effect.all([enqueueInTransaction(traced, undefined), Effect.map(Effect.currentSpan, (span) => span.traceId)])
      ).pipe(Effect.withSpan("order"))
      const outside = yield* enqueueInTransaction(traced, undefined)

      assert.strictEqual(yield* traced.result(id), traceId)
      assert.notStrictEqual(yield* traced.result(outside), traceId)
    }))

  it.effect("enqueue runs that are executed once committed, and can be awaited at once", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table booked (n integer, attempt integer)`
      const rolledBack: Array<RunId> = []
      yield* Effect.exit(withTransaction(
        Effect.flatMap(enqueueInTransaction(echo, { n: -1 }), (id) => {
          rolledBack.push(id)
          return Effect.fail("no")
        })
      ))

      const id = yield* withTransaction(enqueueInTransaction(echo, { n: 7 }))
      assert.strictEqual(yield* echo.result(id), 7)
      const ids = yield* withTransaction(enqueueManyInTransaction(spread, numbers.map((n) => ({ n }))))
      const results = yield* Effect.forEach(ids, spread.result, { concurrency: 50 })

      assert.deepStrictEqual(results, numbers)
      const runs = yield* Runs
      const never = yield* Effect.flip(runs.get(rolledBack[0]!))
      assert.strictEqual(never._tag, "RunNotFound")
      const used = yield* sql`select distinct partition from orrery.all_runs where queue = 'spread' order by partition`
      assert.deepStrictEqual(used, [{ partition: 0 }, { partition: 1 }, { partition: 2 }])
      assert.deepStrictEqual(yield* sql`select id from orrery.inbox`, [])
    }))

  it.effect("need nobody to tell of plain SQL", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [row] = yield* sql<{ id: RunId }>`select orrery.enqueue('echo', 'echo', '{"n": 8}') as id`

      assert.strictEqual(yield* echo.result(row!.id), 8)
    }))

  it.effect("set aside what cannot be a run, as failed, and go on behind it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql<
        { id: RunId }
      >`select orrery.enqueue('echo', 'echo', '{"n": 1}', policy => '{"retry": 1}') as id
        union all select orrery.enqueue('echo', 'echo', '{"n": 1}', keys => '{"unknown": 1}')
        union all select orrery.enqueue('echo', 'echo', '{"n": 9}')`
      const runs = yield* Runs

      assert.strictEqual(yield* echo.result(rows[2]!.id), 9)
      const [policy, keys] = yield* Effect.forEach(rows.slice(0, 2), ({ id }) => runs.awaitFinal(id))
      assert.deepInclude(policy, { state: "failed", attempt: 0 })
      assert.include(policy!.failure?.message, "policy must be a run policy")
      assert.include(keys!.failure?.message, "keys must be keys of a run")
    }))

  it.effect("leave requests waiting for room, and strike out those that another run stands for", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ids = yield* withTransaction(Effect.all([
        enqueueInTransaction(once, { n: 1 }, { idempotencyKey: "a" }),
        enqueueInTransaction(once, { n: 1 }, { idempotencyKey: "a" }),
        enqueueInTransaction(once, { n: 2 }, { idempotencyKey: "b" })
      ]))

      assert.strictEqual(yield* once.result(ids[0]), 1)
      assert.strictEqual(yield* once.result(ids[2]), 2)
      const left = sql`select id from orrery.inbox`
      yield* left.pipe(
        Effect.tap(() => Effect.sleep("20 millis")),
        Effect.repeat({ until: (rows) => rows.length === 0 }),
        Effect.timeout("10 seconds")
      )
      const runs = yield* sql`select id from orrery.all_runs where queue = 'once' order by id`
      assert.deepStrictEqual(runs.map(({ id }) => id), [ids[0], ids[2]])
    }))

  it.effect("end runs together with what their handlers wrote", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient

      assert.strictEqual(yield* book.execute({ n: 5 }), 5)

      assert.deepStrictEqual(yield* sql`select n, attempt from booked`, [{ n: 5, attempt: 2 }])
      const children = sql<{ count: number }>`select count(*)::integer as count from orrery.run_history
        where task = 'echo' and payload = '{"n":5}' and state = 5`
      const [row] = yield* children.pipe(
        Effect.tap(() => Effect.sleep("20 millis")),
        Effect.repeat({ until: ([found]) => found!.count > 0 }),
        Effect.timeout("10 seconds")
      )
      assert.strictEqual(row!.count, 1)
    }))
})
