import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Inbox } from "@orrery/core/Inbox"
import { Attempt } from "@orrery/core/Handlers"
import { Journal, type StoredRun } from "@orrery/core/Journal"
import { defaultPolicy } from "@orrery/core/RunRequest"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import { RunReader } from "@orrery/core/RunReader"
import * as Task from "@orrery/core/Task"
import { completeInTransaction } from "@orrery/store-pg/completeInTransaction"
import { enqueueInTransaction } from "@orrery/store-pg/enqueueInTransaction"
import * as PgInbox from "@orrery/store-pg/PgInbox"
import { batchOf, samplePartition, sampleRun, takePartition, updateOf } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { Cause, Effect, Either, Exit, Fiber, Layer, Option, Redacted, Schema } from "effect"
import { randomBytes } from "node:crypto"

const appClient = Layer.unwrapEffect(
  Effect.map(TestStore.TestDatabase, ({ url }) => PgClient.layer({ url, maxConnections: 4 }))
)
const store = appClient.pipe(Layer.provideMerge(PgInbox.layer), Layer.provideMerge(TestStore.layer))

const charge = Task.make("charge", { payload: Schema.Void, success: Schema.Struct({ receipt: Schema.Number }) })
const mail = Task.make("mail", { payload: Schema.String, queue: "mail" })

const noHistory = JSON.stringify({ ...defaultPolicy, retention: "none" })

/** A run of a partition of its own, as its owner last wrote it. */
const stored = (fields: Partial<StoredRun> = {}) =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const owner = yield* takePartition(samplePartition())
    const lease = owner.epoch * 2 ** 30 + 7
    const run = yield* sampleRun({ policy: JSON.stringify(defaultPolicy), ...fields })
    yield* journal.commit(batchOf(owner, { inserts: [run] }))
    const started = updateOf(run, { state: "running", attempt: 1, lease, worker: "w", startedAt: 1_700_000_000_100 })
    const attempt: Attempt["Type"] = {
      runId: run.id,
      attempt: 1,
      fencingToken: `${lease}.1`,
      idempotencyKey: run.id,
      timeoutMs: 0,
      deadline: undefined,
      heartbeat: Effect.void,
      progress: () => Effect.void,
      log: () => Effect.void,
      notes: { progress: () => undefined, saveCheckpoint: () => Effect.void, loadCheckpoint: Effect.succeedNone }
    }
    return { attempt, journal, lease, owner, run, started }
  })

const running = (fields: Partial<StoredRun> = {}) =>
  Effect.tap(stored(fields), ({ journal, owner, started }) => journal.commit(batchOf(owner, { updates: [started] })))

const book = (run: StoredRun) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`insert into booked values (${run.id})`)
const booked = (run: StoredRun) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select 1 as one from booked where id = ${run.id}`).pipe(
    Effect.map((rows) => rows.length)
  )
const charged = { receipt: 12 }

layer(store, { excludeTestServices: true, timeout: 60_000 })("completeInTransaction", (it) => {
  const made = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create table if not exists booked (id uuid)`)
  const find = (run: StoredRun) => Effect.flatMap(RunReader, (reader) => reader.find(run.id))

  it.effect("commits what the handler wrote, its child runs and the success as one", () =>
    Effect.gen(function*() {
      yield* made
      const { attempt, run } = yield* running()
      let child = ""
      const end = Effect.gen(function*() {
        yield* book(run)
        child = yield* enqueueInTransaction(mail, "thanks")
        assert.strictEqual((yield* find(run))?.state, "running")
        return charged
      })

      const value = yield* completeInTransaction(charge, end).pipe(Effect.provideService(Attempt, attempt))

      assert.strictEqual(value, charged)
      assert.strictEqual(yield* booked(run), 1)
      assert.deepInclude(yield* find(run), {
        state: "succeeded",
        result: `{"receipt":12}`,
        attempt: 1,
        worker: "w",
        startedAt: 1_700_000_000_100,
        payload: run.payload,
        failure: null
      })
      assert.deepStrictEqual(attempt.committed, { _tag: "success", result: `{"receipt":12}` })
      const { rows } = yield* Effect.flatMap(Inbox, (inbox) =>
        inbox.read({ namespace: "default", queue: "mail", partition: 0 }, 100, 1e6))
      assert.deepStrictEqual(
        rows.map(({ request }) =>
          request.id as string
        ),
        [child]
      )
    }))

  it.effect("seals by the codec of the environment, or by the one it is given", () =>
    Effect.gen(function*() {
      yield* made
      const codecOf = (key: string) =>
        PayloadCodec.make({ encrypt: { key, keys: { [key]: Redacted.make(randomBytes(32).toString("base64")) } } })
      const [own, given] = [codecOf("own"), codecOf("given")]
      const sealed = (options?: { readonly codec: PayloadCodec.Codec }) =>
        Effect.gen(function*() {
          const { attempt, run } = yield* running()
          let child = ""
          yield* completeInTransaction(
            charge,
            Effect.gen(function*() {
              child = yield* enqueueInTransaction(mail, "thanks", options)
              return charged
            }),
            options
          ).pipe(Effect.provideService(Attempt, attempt))
          const { rows } = yield* Effect.flatMap(
            Inbox,
            (inbox) => inbox.read({ namespace: "default", queue: "mail", partition: 0 }, 100, 1e6)
          )
          const payload = rows.find(({ request }) => request.id === child)!.request.payload
          const final = yield* find(run)
          const open = (codec: PayloadCodec.Codec) =>
            [
              codec.open(payload, { namespace: "default", run: child, task: "mail", field: "payload" }),
              codec.open(final!.result!, { namespace: "default", run: run.id, task: "charge", field: "result" })
            ].map(Either.getOrElse(() => "unreadable"))
          return { open, payload }
        })

      const plain = yield* sealed()
      const byEnvironment = yield* sealed().pipe(Effect.provideService(PayloadCodec.PayloadCodec, own))
      const byOption = yield* sealed({ codec: given }).pipe(Effect.provideService(PayloadCodec.PayloadCodec, own))

      const texts = [`"thanks"`, `{"receipt":12}`]
      assert.strictEqual(plain.payload, `"thanks"`)
      assert.deepStrictEqual(byEnvironment.open(own), texts)
      assert.deepStrictEqual([byOption.open(given), byOption.open(own)], [texts, ["unreadable", "unreadable"]])
    }))

  it.effect("leaves nothing of a transaction that fails, and the run as it was", () =>
    Effect.gen(function*() {
      yield* made
      const { attempt, run } = yield* running()
      const complete = (end: Effect.Effect<typeof charged, string>) =>
        completeInTransaction(charge, Effect.zipRight(book(run), end)).pipe(Effect.provideService(Attempt, attempt))

      assert.strictEqual(yield* Effect.flip(complete(Effect.fail("declined"))), "declined")
      const interrupted = yield* Effect.fork(complete(Effect.never))
      yield* Effect.sleep("50 millis")
      yield* Fiber.interrupt(interrupted)

      assert.strictEqual(yield* booked(run), 0)
      assert.strictEqual((yield* find(run))?.state, "running")
      assert.isUndefined(attempt.committed)
      // A result without a JSON form: the handler ends with it, and the worker makes of it what it always does.
      const odd = Task.make("odd", { payload: Schema.Void, success: Schema.Unknown })
      const value = yield* completeInTransaction(odd, Effect.as(book(run), 1n)).pipe(
        Effect.provideService(Attempt, attempt)
      )
      assert.strictEqual(value, 1n)
      assert.strictEqual(yield* booked(run), 0)
      assert.isUndefined(attempt.committed)
    }))

  it.effect("is refused to an attempt that no longer holds the run, before and after it began", () =>
    Effect.gen(function*() {
      yield* made
      const { attempt, journal, lease, owner, run, started } = yield* running()
      const lost = updateOf(run, { state: "ready", attempt: 1, crashes: 1, lease })
      const meanwhile = Effect.as(
        Effect.zipRight(book(run), journal.commit(batchOf(owner, { updates: [lost] }))),
        charged
      )

      const late = yield* Effect.flip(
        completeInTransaction(charge, meanwhile).pipe(Effect.provideService(Attempt, attempt))
      )
      yield* journal.commit(batchOf(owner, { updates: [{ ...started, attempt: 2, lease: lease + 1 }] }))
      const later = yield* Effect.flip(
        completeInTransaction(charge, meanwhile).pipe(Effect.provideService(Attempt, attempt))
      )

      assert.deepStrictEqual([late._tag, later._tag], ["AttemptFenced", "AttemptFenced"])
      assert.include(late.message, `attempt 1 of run ${run.id} may not end it: another attempt holds the run`)
      assert.strictEqual(yield* booked(run), 0)
      assert.strictEqual((yield* find(run))?.state, "running")
    }))

  it.effect("tells an owner that gave the attempt up that the run is no more", () =>
    Effect.gen(function*() {
      const { attempt, journal, lease, owner, run } = yield* running()
      yield* completeInTransaction(charge, Effect.succeed(charged)).pipe(Effect.provideService(Attempt, attempt))

      const { gone } = yield* journal.commit(
        batchOf(owner, { updates: [updateOf(run, { state: "retrying", attempt: 1, lease })] })
      )

      assert.deepStrictEqual(gone, new Set([run.id]))
      assert.strictEqual((yield* find(run))?.state, "succeeded")
      // The same once more, or by another attempt of this process: there is nothing to end any more.
      const again = yield* Effect.flip(
        completeInTransaction(charge, Effect.succeed(charged)).pipe(Effect.provideService(Attempt, attempt))
      )
      assert.strictEqual(again._tag, "AttemptFenced")
    }))

  it.effect("waits until the start of the attempt is written down", () =>
    Effect.gen(function*() {
      yield* made
      const { attempt, journal, owner, run, started } = yield* stored()
      const completing = yield* Effect.fork(
        completeInTransaction(charge, Effect.as(book(run), charged)).pipe(Effect.provideService(Attempt, attempt))
      )
      yield* Effect.sleep("50 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(completing)))

      yield* journal.commit(batchOf(owner, { updates: [started] }))

      assert.strictEqual(yield* Fiber.join(completing), charged)
      assert.strictEqual((yield* find(run))?.state, "succeeded")
    }))

  it.effect("leaves no history where the task keeps none", () =>
    Effect.gen(function*() {
      const { attempt, run } = yield* running({ policy: noHistory })

      yield* completeInTransaction(charge, Effect.succeed(charged)).pipe(Effect.provideService(Attempt, attempt))

      assert.isUndefined(yield* find(run))
    }))

  it.effect("does not keep the run's row while its process stands still before the commit", () =>
    Effect.gen(function*() {
      yield* made
      const sql = yield* SqlClient.SqlClient
      const { attempt, journal, lease, owner, run } = yield* running()
      // The connection is silent between the last statement and the commit: a synchronous stop of this process would stop the test too.
      const frozen = sql.withTransaction(Effect.gen(function*() {
        yield* book(run)
        yield* sql`delete from orrery.runs where id = ${run.id} and lease = ${lease}`
        yield* sql`select set_config('idle_in_transaction_session_timeout', '300', true)`
        yield* Effect.sleep("1 second")
      }))
      const freezing = yield* Effect.fork(Effect.exit(frozen))
      yield* Effect.sleep("100 millis")

      const { gone } = yield* journal.commit(
        batchOf(owner, { updates: [updateOf(run, { state: "ready", attempt: 1, lease })] })
      )

      assert.isUndefined(gone)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(freezing)))
      assert.strictEqual(yield* booked(run), 0)
      assert.isUndefined(attempt.committed)
    }))

  it.effect("finds out what became of a commit whose answer was lost", () =>
    Effect.gen(function*() {
      yield* made
      const sql = yield* SqlClient.SqlClient
      // The session ends while the commit waits for a deferred trigger: nothing was committed, and that is what is found.
      yield* sql.unsafe(`create table if not exists slow (id uuid);
        create or replace function die_at_commit() returns trigger language plpgsql as $$ begin
          perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
        drop trigger if exists dies on slow;
        create constraint trigger dies after insert on slow deferrable initially deferred
          for each row execute function die_at_commit()`)
      const { attempt, run } = yield* running()
      const exit = yield* Effect.exit(
        completeInTransaction(charge, Effect.as(sql`insert into slow values (${run.id})`, charged)).pipe(
          Effect.provideService(Attempt, attempt)
        )
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause), String(exit))
      assert.strictEqual((yield* find(run))?.state, "running")
      assert.isUndefined(attempt.committed)
    }))

  it.effect("dies inside of another transaction", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { attempt, run } = yield* running()
      const exit = yield* Effect.exit(
        sql.withTransaction(completeInTransaction(charge, Effect.succeed(charged))).pipe(
          Effect.provideService(Attempt, attempt)
        )
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      assert.strictEqual((yield* find(run))?.state, "running")
    }))
})
