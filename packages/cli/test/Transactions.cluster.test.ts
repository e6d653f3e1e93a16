/**
 * Nodes kill themselves around the commits that take requests out of the inbox, and around those by which handlers end their
 * runs, while an application enqueues in its own transactions, some of them rolled back, and from plain SQL.
 */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import * as RunsClient from "@orrery/api/RunsClient"
import * as LocalCluster from "@orrery/cli/LocalCluster"
import { isOfTransactions, names } from "@orrery/core/Failpoint"
import { enqueueInTransaction, withTransaction } from "@orrery/store-pg/enqueueInTransaction"
import { assert, it } from "@effect/vitest"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { Effect, Layer, Redacted, Schedule } from "effect"
import { books, queues, tables, urlVariable } from "./fixtures/transactionTasks.js"
import { handlersOf } from "./handlersOf.js"

/** What each process dies of, life by life. One is never armed, so that there is always somebody to ask. */
const plan: Readonly<Record<string, ReadonlyArray<string>>> = {
  "node-1": ["inbox-drain.before-commit@2", "complete.after-commit@4"],
  "node-2": ["complete.before-commit@3", "inbox-drain.after-commit@3"]
}
const places = names.filter(isOfTransactions)

it.scopedLive(
  "loses and doubles nothing of what applications commit, when nodes die around their own commits",
  () =>
    Effect.gen(function*() {
      const databaseUrl = yield* TestPostgres.freshDatabase
      const reached: Array<string> = []
      const app = yield* Layer.build(PgClient.layer({ url: databaseUrl, maxConnections: 6 }))
      yield* Effect.provide(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(tables)), app)
      const cluster = yield* LocalCluster.start({
        databaseUrl,
        nodes: 3,
        workers: 0,
        workerSlots: 4,
        ...handlersOf("transaction", { ORRERY_MAX_CRASHES: "1000", [urlVariable]: Redacted.value(databaseUrl) }),
        envOf: (name, start) => {
          const failpoint = plan[name]?.[start]
          return failpoint === undefined ? {} : { ORRERY_FAILPOINT: failpoint }
        },
        restartPause: Schedule.spaced("50 millis"),
        onLine: (_, line) => {
          const [, name] = /^orrery: failpoint (\S+) reached$/.exec(line) ?? []
          if (name !== undefined) reached.push(name)
        }
      })
      yield* ClusterRig.endAtOnce(cluster)
      const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))

      const outcome = yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        let last = 0
        const order = (enqueue: (n: number) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>) =>
          Effect.suspend(() => {
            const n = ++last
            return withTransaction(sql`insert into orders values (${n})`.pipe(
              Effect.zipRight(enqueue(n)),
              Effect.zipRight(n % 5 === 0 ? Effect.fail("rolled back") : Effect.void)
            ))
          }).pipe(Effect.ignore, Effect.zipRight(Effect.sleep("20 millis")), Effect.forever)
        const byClient = order((n) => enqueueInTransaction(books[n % books.length]!, { n }))
        const bySql = order((n) => {
          const at = n % books.length
          return sql`select orrery.enqueue(${queues[at]!}, ${books[at]!.name}, ${JSON.stringify({ n })}::jsonb)`
        })
        const producers = yield* Effect.fork(
          Effect.all([Effect.provide(byClient, client), byClient, bySql], { concurrency: "unbounded" })
        )
        yield* Effect.sleep("100 millis").pipe(
          Effect.repeat({ until: () => reached.length === places.length }),
          Effect.timeoutFail({
            duration: "100 seconds",
            onTimeout: () => new Error(`reached only ${reached.join(" ")}`)
          }),
          Effect.zipRight(producers.interruptAsFork(producers.id())),
          Effect.zipRight(producers.await)
        )
        yield* ClusterRig.eventually(
          sql<
            { left: number }
          >`select ((select count(*) from orrery.inbox) + (select count(*) from orrery.runs))::integer as left`,
          ([row]) => row!.left === 0
        )
        return yield* Effect.all({
          orders: sql`select n from orders`,
          lost: sql`select n from orders where n not in (select n from booked)`,
          doubled: sql`select n from booked group by n having count(*) > 1`,
          neverOrdered: sql`select n from tried where n not in (select n from orders)`,
          // Its end was committed: no other attempt may follow.
          triedAfterwards: sql`select t.n from tried t join booked b on b.n = t.n and t.attempt > b.attempt`,
          notSucceeded: sql`select id from orrery.run_history where state <> 5`,
          thanked: sql<
            { count: number }
          >`select count(*)::integer as count from orrery.run_history where task = 'thank'`
        })
      }).pipe(Effect.provide(app))

      assert.deepStrictEqual(reached.toSorted(), [...places].sort())
      const { orders, thanked, ...wrong } = outcome
      assert.deepStrictEqual(wrong, { lost: [], doubled: [], neverOrdered: [], triedAfterwards: [], notSucceeded: [] })
      assert.isAbove(orders.length, 50)
      assert.strictEqual(thanked[0]!.count, orders.length)
    }),
  180_000
)
