import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Inbox } from "@orrery/core/Inbox"
import { type Committed, Journal, type StoredRun } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import { defaultPolicy } from "@orrery/core/RunRequest"
import { RunReader } from "@orrery/core/RunReader"
import { Runs } from "@orrery/core/Runs"
import * as Task from "@orrery/core/Task"
import { enqueueInTransaction, enqueueManyInTransaction, withTransaction } from "@orrery/store-pg/enqueueInTransaction"
import * as PgInbox from "@orrery/store-pg/PgInbox"
import { samplePartition, sampleRun, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect, Exit, Layer, Schema } from "effect"

/** The application's own client: of one connection, so that what a transaction leaves in its session is seen. */
const appClient = Layer.unwrapEffect(
  Effect.map(TestStore.TestDatabase, ({ url }) => PgClient.layer({ url, maxConnections: 1 }))
)

const store = appClient.pipe(Layer.provideMerge(PgInbox.layer), Layer.provideMerge(TestStore.layer))

const taskOf = (namespace: string) =>
  Task.make("mail.send", {
    payload: Schema.Struct({ to: Schema.String }),
    queue: "mail",
    namespace,
    orderingKey: ({ to }) => `${to.length}`
  })

/** What the owner makes of a request, in short. */
const runOf = (id: RunId, seq: number) =>
  Effect.map(sampleRun({ seq, task: "mail.send", policy: JSON.stringify(defaultPolicy) }), (run): StoredRun => ({
    ...run,
    id
  }))

layer(store, { excludeTestServices: true, timeout: 60_000 })("PgInbox", (it) => {
  const move = (owner: { readonly partitionId: number; readonly epoch: number }, runs: ReadonlyArray<StoredRun>) =>
    Effect.flatMap(Journal, (journal) =>
      journal.commit({
        partitionId: owner.partitionId,
        epoch: owner.epoch,
        inserts: runs.map((run) => ({ run, resend: false })),
        updates: [],
        finishes: [],
        fromInbox: true
      }))
  const idsIn = (namespace: string) =>
    Effect.flatMap(Inbox, (inbox) => inbox.read(samplePartition({ namespace }), 100, 1_000_000)).pipe(
      Effect.map(({ rows }) => rows.map(({ request }) => request.id))
    )

  it.effect("holds what was committed, in order and as it was asked for, and nothing of what was rolled back", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const inbox = yield* Inbox
      const { namespace } = samplePartition()
      const task = taskOf(namespace)
      yield* sql`create table if not exists orders (n integer)`
      const order = (n: number, end: Effect.Effect<void, string>) =>
        withTransaction(Effect.gen(function*() {
          yield* sql`insert into orders values (${n})`
          yield* enqueueInTransaction(task, { to: `rolled-back-${n}` })
          yield* end
        }))

      yield* Effect.flip(order(1, Effect.fail("no")))
      const [first, second] = yield* withTransaction(
        enqueueManyInTransaction(task, [{ to: "é \u0000 \"a\"" }, { to: "b" }], { priority: 2, delay: "1 hour" })
      )

      assert.deepStrictEqual(yield* sql`select n from orders`, [])
      const { complete, rows } = yield* inbox.read(samplePartition({ namespace }), 10, 1_000_000)
      const wanted = yield* task.request({ to: "é \u0000 \"a\"" }, { priority: 2 })
      assert.isTrue(complete)
      assert.deepStrictEqual(rows.map(({ request }) => request.id), [first, second])
      const { trace, when, ...request } = rows[0]!.request
      const { when: _, ...rest } = { ...wanted, id: first }
      // Enqueued within the span of the transaction.
      assert.match(trace!, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
      const plain = (value: object): unknown => JSON.parse(JSON.stringify(value))
      assert.deepStrictEqual(plain(request), plain(rest))
      const now = yield* Effect.flatMap(PartitionStore, (partitions) => partitions.now)
      assert.isAtMost(Math.abs(when.ms - now - 3_600_000), 60_000)
      assert.isTrue(yield* inbox.wasUsed)
    }))

  it.effect("tells the owner after the commit only, and each queue once", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { namespace } = samplePartition()
      const task = taskOf(namespace)
      const told: Array<string> = []
      const runs = Runs.of(
        {
          nudge: (queues: ReadonlyArray<{ readonly queue: string }>) =>
            Effect.sync(() => void told.push(queues.map(({ queue }) => queue).join()))
        } as unknown as Runs["Type"]
      )
      const twice = Effect.zipRight(enqueueInTransaction(task, { to: "a" }), enqueueInTransaction(task, { to: "b" }))

      yield* Effect.gen(function*() {
        yield* Effect.exit(withTransaction(Effect.zipRight(twice, Effect.fail("no"))))
        assert.deepStrictEqual(told, [])
        yield* withTransaction(
          Effect.zipLeft(withTransaction(twice), Effect.sync(() => assert.deepStrictEqual(told, [])))
        )
        assert.deepStrictEqual(told, ["mail"])
        yield* sql.withTransaction(twice)
        assert.deepStrictEqual(told, ["mail"])
        yield* enqueueInTransaction(task, { to: "c" })
        assert.deepStrictEqual(told, ["mail", "mail"])
      }).pipe(Effect.provideService(Runs, runs))
    }))

  it.effect("leaves nothing in the session: a pooler may give each transaction another one", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const settings = sql`select name, setting from pg_settings where source = 'session' order by name`
      const before = yield* settings

      yield* withTransaction(enqueueInTransaction(taskOf(samplePartition().namespace), { to: "a" }))

      assert.deepStrictEqual(yield* sql`select statement from pg_prepared_statements`, [])
      assert.deepStrictEqual(yield* sql`select * from pg_listening_channels()`, [])
      assert.deepStrictEqual(
        yield* sql`select 1 from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()`,
        []
      )
      assert.deepStrictEqual(yield* settings, before)
    }))

  it.effect("refuses what is out of bounds, and rolls nothing of the caller back by itself", () =>
    Effect.gen(function*() {
      const task = taskOf(samplePartition().namespace)
      const long = Task.make("mail.send", {
        payload: Schema.String,
        queue: "q".repeat(200),
        namespace: "n".repeat(100)
      })

      const [large, priority, names] = yield* Effect.all([
        Effect.flip(enqueueInTransaction(task, { to: "x".repeat(300_000) })),
        Effect.flip(enqueueInTransaction(task, { to: "a" }, { priority: 10 })),
        Effect.flip(enqueueInTransaction(long, "a"))
      ])

      assert.deepStrictEqual([large._tag, priority._tag, names._tag], [
        "PayloadTooLarge",
        "InvalidRequest",
        "InvalidRequest"
      ])
      assert.include(names.message, "300 characters")
    }))

  it.effect("is taken once, whoever drains it at the same time", () =>
    Effect.gen(function*() {
      const partition = samplePartition()
      const owner = yield* takePartition(partition)
      const ids = yield* enqueueManyInTransaction(
        taskOf(partition.namespace),
        Array.from({ length: 50 }, (_, n) => ({ to: `${n}` }))
      )
      const attempt = (from: number) =>
        Effect.flatMap(Effect.forEach(ids, (id, at) => runOf(id, from + at)), (runs) => move(owner, runs))

      const answers = yield* Effect.all([attempt(1), attempt(1_001), attempt(2_001)], { concurrency: "unbounded" })

      const made = answers.map(({ duplicates }: Committed) => ids.length - duplicates.size)
      assert.strictEqual(made.reduce((sum, each) => sum + each), ids.length)
      assert.deepStrictEqual(yield* idsIn(partition.namespace), [])
      const partitions = yield* PartitionStore
      const found = yield* Effect.forEach(ids, (id) => partitions.findRun(owner.partitionId, id))
      assert.isTrue(found.every((run) => run !== undefined))
    }))

  it.effect("is left as it is by an owner that was replaced, by a run without a row, and by one that is there", () =>
    Effect.gen(function*() {
      const partition = samplePartition()
      const old = yield* takePartition(partition)
      const [id, known] = yield* enqueueManyInTransaction(taskOf(partition.namespace), [{ to: "a" }, { to: "b" }])
      const owner = yield* takePartition(partition)
      const [run, other, stray] = yield* Effect.all([runOf(id!, 1), runOf(known!, 2), sampleRun({ seq: 3 })])

      const fenced = yield* Effect.flip(move(old, [run]))
      const inbox = yield* Inbox
      const fencedToo = yield* Effect.flip(inbox.remove(old, [id!]))
      const refused = yield* Effect.flip(inbox.refuse(old, [{ id: id!, failure: "{}" }]))

      assert.deepStrictEqual([fenced._tag, fencedToo._tag, refused._tag], ["Fenced", "Fenced", "Fenced"])
      assert.deepStrictEqual(yield* idsIn(partition.namespace), [id, known])
      // The same request came on the ordinary way as well.
      const journal = yield* Journal
      yield* journal.commit({ ...owner, inserts: [{ run: other, resend: false }], updates: [], finishes: [] })
      const { duplicates } = yield* move(owner, [run, { ...other, seq: 9 }, stray])
      assert.deepStrictEqual(duplicates, new Set([known!, stray.id]))
      assert.deepStrictEqual(yield* idsIn(partition.namespace), [])
      const partitions = yield* PartitionStore
      assert.strictEqual((yield* partitions.findRun(owner.partitionId, known!))?.seq, 2)
      assert.isUndefined(yield* partitions.findRun(owner.partitionId, stray.id))
    }))

  it.effect("shows a run before it was taken, and what can never be one as failed", () =>
    Effect.gen(function*() {
      const partition = samplePartition()
      const owner = yield* takePartition(partition)
      const [now, later, bad] = yield* enqueueManyInTransaction(taskOf(partition.namespace), [
        { to: "a" },
        { to: "b" },
        { to: "c" }
      ])
      const reader = yield* RunReader
      const inbox = yield* Inbox
      const waiting = yield* reader.find(now!)
      assert.deepInclude(waiting, { state: "ready", queue: "mail", task: "mail.send", attempt: 0, result: null })

      yield* inbox.remove(owner, [later!])
      yield* inbox.refuse(owner, [{
        id: bad!,
        failure: `{"kind":"undecodable","tag":"InvalidRequest","message":"why"}`
      }])
      yield* inbox.refuse(owner, [{
        id: bad!,
        failure: `{"kind":"undecodable","tag":"InvalidRequest","message":"again"}`
      }])

      const failed = yield* reader.find(bad!)
      assert.deepInclude(failed, { state: "failed", queue: "mail", payload: `{"to":"c"}` })
      assert.strictEqual(failed?.failure?.message, "why")
      assert.deepStrictEqual(yield* idsIn(partition.namespace), [now])
    }))

  it.effect("tells which partitions have rows, those that were placed apart", () =>
    Effect.gen(function*() {
      const inbox = yield* Inbox
      const { namespace } = samplePartition()
      const [first, second, third] = yield* enqueueManyInTransaction(
        taskOf(namespace),
        ["a", "b", "c"].map((to) => ({ to }))
      )
      yield* inbox.place([{ id: first!, partition: 7 }, { id: second!, partition: 3 }])
      // Marked once: the keys of a row do not change.
      yield* inbox.place([{ id: first!, partition: 9 }])

      const found = (yield* inbox.waiting).filter((each) => each.namespace === namespace)

      assert.deepStrictEqual(found.map(({ partition }) => partition), [0, 3, 7])
      const { rows } = yield* inbox.read({ namespace, queue: "mail", partition: 7 }, 10, 1_000)
      assert.deepStrictEqual(rows.map(({ partition, request }) => [partition, request.id]), [[7, first!]])
      assert.deepStrictEqual(yield* idsIn(namespace), [third])
    }))

  it.effect("is read in pages of rows and of bytes", () =>
    Effect.gen(function*() {
      const inbox = yield* Inbox
      const name = samplePartition()
      yield* enqueueManyInTransaction(taskOf(name.namespace), ["a", "b", "c"].map((to) => ({ to: to.repeat(100) })))

      const pages = yield* Effect.all([
        inbox.read(name, 2, 10_000),
        inbox.read(name, 9, 1),
        inbox.read(name, 9, 10_000)
      ])

      assert.deepStrictEqual(pages.map(({ complete, rows }) => [rows.length, complete]), [[2, false], [1, false], [
        3,
        true
      ]])
    }))

  it.effect("takes requests from plain SQL and from triggers", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const inbox = yield* Inbox
      const name = samplePartition()
      yield* sql.unsafe(`create table if not exists customers (email text);
        create or replace function welcome() returns trigger language plpgsql as $$ begin
          perform orrery.enqueue(queue => 'mail', task => 'mail.send', payload => jsonb_build_object('to', new.email),
            namespace => '${name.namespace}', keys => '{"order":"k"}', delay => '1 minute', priority => 1);
          return new;
        end $$;
        create or replace trigger welcome after insert on customers for each row execute function welcome()`)
      const insert = sql`insert into customers values ('a@example.org'), ('b@example.org')`
      yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert, Effect.fail("no"))))
      assert.deepStrictEqual(yield* idsIn(name.namespace), [])

      yield* insert
      const [row] = yield* sql<
        { id: RunId }
      >`select orrery.enqueue('mail', 'mail.send', namespace => ${name.namespace}) as id`

      const { rows } = yield* inbox.read(name, 10, 10_000)
      assert.deepStrictEqual(
        rows.map(({ request }) => [JSON.parse(request.payload), request.priority, request.keys]),
        [
          [{ to: "a@example.org" }, 1, `{"order": "k"}`],
          [{ to: "b@example.org" }, 1, `{"order": "k"}`],
          [null, 5, null]
        ]
      )
      assert.strictEqual(rows[2]!.request.id, row!.id)
      assert.match(row!.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.isAtMost(Math.abs(parseInt(row!.id.replaceAll("-", "").slice(0, 12), 16) - Date.now()), 60_000)
      assert.deepStrictEqual(JSON.parse(rows[2]!.request.policy), defaultPolicy)
    }))

  it.effect("says in SQL what is wrong", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const wrong: Readonly<Record<string, string>> = {
        "queue => 'a b', task => 't'": "queue must be 1 to 200 characters of A-Z a-z 0-9 _ . : / -, got 'a b'",
        "queue => 'q', task => null": "task must be 1 to 200 characters",
        "queue => 'q', task => 't', priority => 10": "priority must be an integer from 0 to 9, got '10'",
        "queue => 'q', task => 't', delay => '1 s', at => now()": "at must be absent when delay is given",
        "queue => 'q', task => 't', delay => '-1 s'": "delay must be 0 to 3660 days",
        "queue => 'q', task => 't', at => 'infinity'": "at must be an instant",
        "queue => 'q', task => 't', keys => '[]'": "keys must be a JSON object, got '[]'",
        "queue => 'q', task => 't', payload => to_jsonb(repeat('x', 300000))":
          "payload must be at most 262144 bytes, got 300002"
      }
      for (const [given, message] of Object.entries(wrong)) {
        const exit = yield* Effect.exit(sql.unsafe(`select orrery.enqueue(${given})`))
        assert.isTrue(Exit.isFailure(exit), given)
        assert.include(
          String(Exit.isFailure(exit) && (exit.cause as never as { error: { cause: Error } }).error.cause),
          message
        )
      }
    }))

  it.effect("needs no rights but to insert", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { namespace } = samplePartition()
      const role = `app_${namespace.replaceAll("-", "_")}`
      yield* sql.unsafe(
        `create role ${role}; grant usage on schema orrery to ${role}; grant insert on orrery.inbox to ${role}`
      )

      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql.unsafe(`set local role ${role}`)
        yield* enqueueInTransaction(taskOf(namespace), { to: "a" })
        yield* sql`select orrery.enqueue('mail', 'mail.send', namespace => ${namespace})`
      }))

      assert.strictEqual((yield* idsIn(namespace)).length, 2)
      yield* sql.unsafe(`drop owned by ${role}; drop role ${role}`)
    }))
})
