import { assert, it } from "@effect/vitest"
import * as PgMigrations from "@orrery/store-pg/PgMigrations"
import * as PgPools from "@orrery/store-pg/PgPools"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Redacted } from "effect"
import pg from "pg"
import * as Audit from "../src/Audit.js"
import * as Database from "../src/Database.js"

const run = "01a20e44-ee21-7000-aba7-ba3dde32349a"

/** A session of the journal of a node. */
const session = (url: Redacted.Redacted<string>, node: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const client = new pg.Client({
          connectionString: Redacted.value(url),
          application_name: PgPools.applicationName("journal", node)
        })
        await client.connect()
        return client
      }),
      (client) => Effect.promise(() => client.end())
    ),
    (client) => (text: string) => Effect.promise(() => client.query(text))
  )

const takeOver = (owner: string, epoch: number) =>
  `insert into orrery.partitions as p (namespace, queue, partition, epoch, owner, taken_at)
   values ('n', 'q', 0, 1, '${owner}', now())
   on conflict (namespace, queue, partition) do update set epoch = ${epoch}, owner = excluded.owner`
const insert = `insert into orrery.runs
  (id, partition_id, priority, state, seq, created_at, scheduled_at, order_key, task, payload, policy)
  values ('${run}', 1, 5, 2, 1, 0, 0, 0, 't', '{}', '{}')`
const update = `update orrery.runs set state = 3, attempt = 1, lease = 7 where id = '${run}'`
const finish = `with gone as (delete from orrery.runs where id = '${run}' returning *)
  insert into orrery.run_history
    (id, partition_id, priority, state, attempt, crashes, seq, created_at, scheduled_at, finished_at, task, payload, policy)
  select id, partition_id, priority, 5, 1, 0, seq, created_at, scheduled_at, 0, task, payload, policy from gone`

it.scopedLive(
  "tells each change of a run once, under the epoch of who wrote it, and who was not the owner",
  () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.freshDatabase
      yield* PgMigrations.run.pipe(Effect.provide(PgPools.layer({ url, journalConnections: 1, readConnections: 1 })))
      yield* Audit.install(url)
      const query = yield* Database.open(url)
      const one = yield* session(url, "one")
      const two = yield* session(url, "two")

      yield* one(takeOver("one", 1))
      yield* one(insert)
      yield* two(takeOver("two", 2))
      yield* one(update)
      yield* two(finish)

      const { committed, takeovers, zombies } = yield* Audit.read(query, 0)
      assert.deepStrictEqual(
        committed.map(({ attempt, epoch, from, lease, to }) => [from, to, epoch, attempt, lease]),
        [
          [undefined, "ready", 1, 0, 0],
          ["ready", "running", 1, 1, 7],
          ["running", "succeeded", 2, 1, 7]
        ]
      )
      assert.strictEqual(takeovers, 2)
      assert.deepStrictEqual(zombies, [`orrery-journal-one changed run ${run} of partition 1, whose owner was two`])
    }),
  60_000
)
