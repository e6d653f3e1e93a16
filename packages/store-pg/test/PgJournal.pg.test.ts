import { assert, describe, it } from "@effect/vitest"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import * as PgJournal from "@orrery/store-pg/PgJournal"
import * as PgPools from "@orrery/store-pg/PgPools"
import { journalContract } from "@orrery/testing/journalContract"
import { batchOf, finishOf, samplePartition, sampleRun, takePartition, updateOf } from "@orrery/testing/storeSamples"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import * as TestStore from "@orrery/testing/TestStore"
import { Context, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"

journalContract("postgres", TestStore.layer)

type Client = Effect.Effect.Success<typeof TestStore.ownClient>

/** Waits until a session of ours waits for a lock. */
const isBlocked = (client: Client, role: string) =>
  TestStore.query(
    client,
    "select 1 from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock' and datname = current_database()",
    [`orrery-${role}`]
  ).pipe(
    Effect.repeat({ until: (rows) => rows.length > 0 }),
    Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => `no ${role} session is blocked` })
  )

const commit = (...args: Parameters<typeof batchOf>) =>
  Effect.flatMap(Journal, (journal) => journal.commit(batchOf(...args)))

describe.concurrent("fence", () => {
  it.scopedLive("makes a takeover wait for a commit under way, and see its runs", () =>
    Effect.gen(function*() {
      const partition = samplePartition()
      const old = yield* takePartition(partition)
      const run = yield* sampleRun({ state: "running" })
      // A commit that has the share lock and is not done: stopped by an insert of the same id.
      const client = yield* TestStore.ownClient
      const looking = yield* TestStore.ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(
        client,
        `insert into orrery.runs (id, partition_id, priority, state, attempt, crashes, seq, lease, created_at,
           scheduled_at, order_key, task, payload, policy) values ($1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, '', '', '')`,
        [run.id]
      )
      const committing = yield* Effect.fork(commit(old, { inserts: [run] }))
      yield* isBlocked(looking, "journal")

      const taking = yield* Effect.fork(takePartition(partition))
      yield* isBlocked(looking, "read")
      yield* TestStore.query(client, "rollback")

      const taken = yield* Fiber.join(taking)
      assert.strictEqual((yield* Fiber.join(committing)).duplicates.size, 0)
      assert.deepStrictEqual(taken.running, [run])
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("makes a commit wait for a takeover under way, and refuses it", () =>
    Effect.gen(function*() {
      const store = yield* PartitionStore
      const old = yield* takePartition()
      const run = yield* sampleRun()
      const client = yield* TestStore.ownClient
      const looking = yield* TestStore.ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "update orrery.partitions set epoch = epoch + 1 where id = $1", [old.partitionId])

      const committing = yield* Effect.fork(Effect.flip(commit(old, { inserts: [run] })))
      yield* isBlocked(looking, "journal")
      yield* TestStore.query(client, "commit")

      assert.strictEqual((yield* Fiber.join(committing))._tag, "Fenced")
      assert.isUndefined(yield* store.findRun(old.partitionId, run.id))
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("shows every takeover in a storm all that was written before it, and lets nothing follow", () =>
    Effect.gen(function*() {
      const partition = samplePartition()
      const writers: Array<Fiber.RuntimeFiber<Array<string>, unknown>> = []
      const seen: Array<{ readonly epoch: number; readonly ids: Set<string> }> = []

      for (let round = 0; round < 15; round++) {
        const owner = yield* takePartition(partition)
        seen.push({ epoch: owner.epoch, ids: new Set(owner.running.map((run) => run.id)) })
        const acknowledged: Array<string> = []
        writers.push(yield* Effect.fork(writeUntilFenced(owner, acknowledged)))
        // The next one comes in the middle of a commit, sooner or later.
        yield* Effect.repeat(Effect.sleep("1 millis"), { until: () => acknowledged.length > round % 4 })
      }
      const last = yield* takePartition(partition)
      const written = yield* Effect.all(writers.map((writer) => Fiber.join(writer)))

      seen.push({ epoch: last.epoch, ids: new Set(last.running.map((run) => run.id)) })
      written.forEach((ids, at) => {
        for (const id of ids) assert.isTrue(seen[at + 1]!.ids.has(id), "an acknowledged run is seen by the next owner")
      })
      for (const [at, { epoch, ids }] of seen.entries()) {
        const before = last.running.filter((run) => run.lease < epoch)
        assert.deepStrictEqual(new Set(before.map((run) => run.id)), ids, `takeover ${at} saw all that there ever was`)
      }
      assert.isAbove(written.flat().length, 30)
    }).pipe(Effect.provide(TestStore.layer)))
})

const writeUntilFenced = (
  owner: { readonly partitionId: number; readonly epoch: number },
  acknowledged: Array<string>
) =>
  Effect.gen(function*() {
    for (let seq = 1;; seq++) {
      const run = yield* sampleRun({ seq: owner.epoch * 1_000_000 + seq, state: "running", lease: owner.epoch })
      const exit = yield* Effect.exit(commit(owner, { inserts: [run] }))
      if (Exit.isFailure(exit)) return acknowledged
      acknowledged.push(run.id)
    }
  })

describe.concurrent("lost connections", () => {
  it.scopedLive("lose nothing and double nothing when sessions are killed under load", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      const counters = yield* PgJournal.PgJournalCounters
      const client = yield* TestStore.ownClient
      const perBatch = 50
      const batches = 40
      const killsMax = 25
      const actor = Effect.gen(function*() {
        const owner = yield* takePartition()
        let before: Array<StoredRun> = []
        for (let batch = 0; batch < batches; batch++) {
          const runs = yield* Effect.all(
            Array.from({ length: perBatch }, (_, n) => sampleRun({ seq: batch * perBatch + n }))
          )
          // The first half of the batch before ends with this one.
          const finishes = before.slice(0, perBatch / 2).map((run) => finishOf(run))
          const updates = before.slice(perBatch / 2).map((run) => updateOf(run, { attempt: batch }))
          const { duplicates } = yield* journal.commit(batchOf(owner, { inserts: runs, finishes, updates }))
          assert.strictEqual(duplicates.size, 0)
          before = runs
        }
        return owner.partitionId
      })
      // In the middle of a statement, where it hurts.
      const kill = TestStore.query<{ killed: number }>(
        client,
        `select count(*)::int as killed from (
           select pg_terminate_backend(pid) from pg_stat_activity
           where application_name = 'orrery-journal' and datname = current_database() and state = 'active' limit 1
         ) one`
      ).pipe(Effect.map((rows) => rows[0]!.killed))
      let kills = 0
      const killer = Effect.gen(function*() {
        while (kills < killsMax) {
          kills += yield* kill
          yield* Effect.sleep("10 millis")
        }
      })

      const killing = yield* Effect.fork(killer)
      const partitions = yield* Effect.all(Array.from({ length: 6 }, () => actor), { concurrency: "unbounded" })
      yield* Fiber.interrupt(killing)

      const [hot] = yield* TestStore.query(
        client,
        "select count(*)::int as rows, count(distinct id)::int as ids from orrery.runs where partition_id = any($1)",
        [partitions]
      )
      const [past] = yield* TestStore.query(
        client,
        "select count(*)::int as rows, count(distinct id)::int as ids from orrery.run_history where partition_id = any($1)",
        [partitions]
      )
      const final = 6 * (batches - 1) * perBatch / 2
      assert.deepStrictEqual(past, { rows: final, ids: final })
      assert.deepStrictEqual(hot, { rows: 6 * batches * perBatch - final, ids: 6 * batches * perBatch - final })
      assert.isAbove(kills, 5)
      assert.isAbove(counters.retries, 0)
      assert.strictEqual(counters.bytesPending, 0)
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("end the lost session before the commit is sent again", () =>
    Effect.gen(function*() {
      const { journal: pool } = yield* PgPools.PgPools
      const owner = yield* takePartition()
      const run = yield* sampleRun()
      yield* commit(owner, { inserts: [run] })
      const client = yield* TestStore.ownClient
      const looking = yield* TestStore.ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "select 1 from orrery.runs where id = $1 for update", [run.id])
      const committing = yield* Effect.fork(commit(owner, { updates: [updateOf(run, { attempt: 1 })] }))
      yield* isBlocked(looking, "journal")
      const before = yield* journalPids(looking)

      // The server does not notice: it goes on waiting for the row, and would write when it gets it.
      cutSockets(pool)
      const waiting = yield* journalPids(looking).pipe(
        Effect.repeat({ until: (pids) => pids.some((pid) => !before.includes(pid)) }),
        Effect.timeout("10 seconds")
      )
      assert.isFalse(waiting.some((pid) => before.includes(pid)), "no session of an earlier copy is at work")
      yield* TestStore.query(client, "rollback")

      yield* Fiber.join(committing)
      const store = yield* PartitionStore
      assert.strictEqual((yield* store.findRun(owner.partitionId, run.id))?.attempt, 1)
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("give up after the deadline", () =>
    Effect.gen(function*() {
      const { journal: pool } = yield* PgPools.PgPools
      const owner = yield* takePartition()
      const run = yield* sampleRun()
      // No connection is to be had any more, and those that there are break.
      void pool.end()
      cutSockets(pool)

      const error = yield* Effect.flip(commit(owner, { inserts: [run] }))

      assert.strictEqual(error._tag, "StoreUnavailable")
    }).pipe(Effect.provide(TestStore.layerWith({ resolveFor: "300 millis" })), Effect.timeout("10 seconds")))
})

const journalPids = (client: Client) =>
  TestStore.query<{ pid: number }>(
    client,
    `select pid from pg_stat_activity where application_name = 'orrery-journal' and datname = current_database()
     and wait_event_type = 'Lock'`
  ).pipe(Effect.map((rows) => rows.map((row) => row.pid)))

/** As when a network device forgets the connection: the server hears nothing of it. */
const cutSockets = (pool: PgPools.PgPools["Type"]["journal"]): void => {
  // Not public in node-postgres.
  const { _clients } = pool as unknown as { _clients: Array<{ connection: { stream: { destroy: () => void } } }> }
  for (const client of _clients) client.connection.stream.destroy()
}

describe.concurrent("bounds", () => {
  it.scopedLive("refuses more bytes than it may hold, and takes them again later", () =>
    Effect.gen(function*() {
      const counters = yield* PgJournal.PgJournalCounters
      const owners = yield* Effect.all(Array.from({ length: 8 }, () => takePartition()))
      const payload = `"${"x".repeat(100_000)}"`
      const runs = yield* Effect.all(owners.map(() => sampleRun({ payload })))
      const client = yield* TestStore.ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "lock table orrery.runs in exclusive mode")

      const all = yield* Effect.fork(Effect.all(
        owners.map((owner, at) => Effect.either(commit(owner, { inserts: [runs[at]!] }))),
        { concurrency: "unbounded" }
      ))
      yield* isBlocked(yield* TestStore.ownClient, "journal")
      const held = counters.bytesPending
      assert.isAbove(counters.unansweredMs, 0)
      yield* TestStore.query(client, "rollback")
      const answers = yield* Fiber.join(all)

      assert.isAtMost(held, 500_000)
      const refused = answers.filter((each) => each._tag === "Left").map((each) => each.left)
      assert.strictEqual(refused.length, 4)
      for (const error of refused) {
        assert(error._tag === "Overloaded")
        assert.isAbove(error.retryAfterMs, 0)
      }
      assert.strictEqual(counters.bytesPending, 0)
      assert.strictEqual(counters.batchesPending, 0)
      assert.strictEqual(counters.unansweredMs, 0)
      yield* commit(owners[7]!, { inserts: [runs[7]!] })
    }).pipe(Effect.provide(TestStore.layerWith({ pendingBytesMax: 500_000 }))))

  it.scopedLive("commits a batch that is larger than a commit should be", () =>
    Effect.gen(function*() {
      const store = yield* PartitionStore
      const owner = yield* takePartition()
      const runs = yield* Effect.all(Array.from({ length: 30 }, (_, seq) => sampleRun({ seq })))

      yield* commit(owner, { inserts: runs })

      const found = yield* Effect.forEach(runs, (run) => store.findRun(owner.partitionId, run.id))
      assert.deepStrictEqual(found, runs)
    }).pipe(Effect.provide(TestStore.layerWith({ rowsMax: 10, bytesMax: 1, pendingBytesMax: 1 }))))

  it.scopedLive("fails alone the batch that the database will not take", () =>
    Effect.gen(function*() {
      const counters = yield* PgJournal.PgJournalCounters
      const store = yield* PartitionStore
      const owners = yield* Effect.all(Array.from({ length: 7 }, () => takePartition()))
      const bad = 4
      // PostgreSQL text cannot hold a NUL.
      const runs = yield* Effect.all(owners.map((_, at) => sampleRun(at === bad ? { payload: "secret\u0000" } : {})))

      const exits = yield* Effect.all(
        owners.map((owner, at) => Effect.either(commit(owner, { inserts: [runs[at]!] }))),
        { concurrency: "unbounded" }
      )

      assert.deepStrictEqual(exits.map((exit) => exit._tag), owners.map((_, at) => at === bad ? "Left" : "Right"))
      const error = exits[bad]!
      assert(error._tag === "Left" && error.left._tag === "StoreUnavailable")
      assert.notInclude(error.left.message, "secret")
      for (const [at, owner] of owners.entries()) {
        const found = yield* store.findRun(owner.partitionId, runs[at]!.id)
        assert.strictEqual(found !== undefined, at !== bad)
      }
      assert.strictEqual(counters.refused, 1)
    }).pipe(Effect.provide(TestStore.layer)))

  it.scopedLive("commits what it was given before it is closed", () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.migratedDatabase
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(
        TestStore.stores().pipe(Layer.provideMerge(PgPools.layer({ url }))),
        scope
      )
      const journal = Context.get(services, Journal)
      const owner = yield* takePartition().pipe(Effect.provide(services))
      const run = yield* sampleRun()
      const ownClient = TestStore.ownClient.pipe(Effect.provideService(TestStore.TestDatabase, { url }))
      const client = yield* ownClient
      const looking = yield* ownClient
      yield* TestStore.query(client, "begin")
      yield* TestStore.query(client, "lock table orrery.runs in exclusive mode")
      const committing = yield* Effect.fork(journal.commit(batchOf(owner, { inserts: [run] })))
      yield* isBlocked(looking, "journal")

      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.sleep("100 millis")
      const refused = yield* Effect.flip(journal.commit(batchOf(owner, {})))
      yield* TestStore.query(client, "rollback")
      yield* Fiber.join(closing)

      assert.strictEqual((yield* Fiber.join(committing)).duplicates.size, 0)
      assert.strictEqual(refused._tag, "StoreUnavailable")
    }))

  it.scopedLive("keeps the password out of errors", () =>
    Effect.gen(function*() {
      const wrong = new URL(Redacted.value(yield* TestPostgres.adminUrl))
      wrong.password = "canary-secret"
      wrong.pathname = "/no-such-database"
      const owner = { partitionId: 1, epoch: 1 }

      const pools = PgPools.layer({ url: Redacted.make(wrong.href) }).pipe(Layer.orDie)
      const error = yield* Effect.flip(commit(owner, {})).pipe(
        Effect.provide(PgJournal.layer({ resolveFor: "200 millis" }).pipe(Layer.provide(pools)))
      )

      assert.strictEqual(error._tag, "StoreUnavailable")
      assert.notInclude(JSON.stringify(error) + String(error) + error.stack, "canary-secret")
    }))
})
