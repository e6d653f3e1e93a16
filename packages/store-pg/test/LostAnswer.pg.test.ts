/** The connection ends exactly between a commit and its answer: the server has committed, the journal does not know. */
import { assert, describe, it } from "@effect/vitest"
import { Journal } from "@orrery/core/Journal"
import { PartitionStore } from "@orrery/core/PartitionStore"
import * as PgJournal from "@orrery/store-pg/PgJournal"
import * as PgPools from "@orrery/store-pg/PgPools"
import { batchOf, finishOf, samplePartition, sampleRun, takePartition, updateOf } from "@orrery/testing/storeSamples"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import * as TestStore from "@orrery/testing/TestStore"
import { Effect, Fiber, Layer, Redacted } from "effect"
import * as Net from "node:net"

/** Between the journal and the server. Once told to, it keeps the answers to commits for itself. */
const makeProxy = (to: { readonly host: string; readonly port: number }) =>
  Effect.gen(function*() {
    const muted = new Set<Net.Socket>()
    const sockets = new Set<Net.Socket>()
    let isMuting = false
    const server = Net.createServer((socket) => {
      const upstream = Net.connect(to)
      for (const each of [socket, upstream]) {
        sockets.add(each)
        each.on("error", () => undefined)
        each.on("close", () => sockets.delete(each))
      }
      socket.on("data", (bytes) => {
        if (isMuting && bytes.includes("orrery_commit_")) muted.add(socket)
        upstream.write(bytes)
      })
      upstream.on("data", (bytes) => {
        if (!muted.has(socket)) socket.write(bytes)
      })
      socket.on("close", () => upstream.destroy())
      upstream.on("close", () => socket.destroy())
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.sync(() => {
          for (const each of sockets) each.destroy()
          server.close()
        })
    )
    return {
      port: (server.address() as Net.AddressInfo).port,
      /** From now on commits are made and not answered. */
      mute: Effect.sync(() => {
        isMuting = true
      }),
      /** The connections of those commits end. How many. */
      cut: Effect.sync(() => {
        isMuting = false
        const cut = muted.size
        for (const socket of muted) socket.destroy()
        muted.clear()
        return cut
      })
    }
  })

const setUp = Effect.gen(function*() {
  const url = yield* TestPostgres.migratedDatabase
  const server = new URL(Redacted.value(url))
  const proxy = yield* makeProxy({ host: server.hostname, port: Number(server.port) })
  const through = new URL(server)
  through.hostname = "127.0.0.1"
  through.port = String(proxy.port)
  const services = yield* Layer.build(
    TestStore.stores().pipe(Layer.provideMerge(PgPools.layer({ url: Redacted.make(through.href) })))
  )
  const client = yield* TestStore.ownClient.pipe(Effect.provideService(TestStore.TestDatabase, { url }))
  const holds = (text: string, id: string) =>
    TestStore.query(client, text, [id]).pipe(
      Effect.repeat({ until: (rows) => rows.length > 0 }),
      Effect.timeout("20 seconds")
    )
  const countOf = (table: string, id: string) =>
    Effect.map(
      TestStore.query<{ n: number }>(client, `select count(*)::integer as n from orrery.${table} where id = $1`, [id]),
      ([row]) => row!.n
    )
  return { proxy, services, holds, countOf }
})

const commit = (...args: Parameters<typeof batchOf>) =>
  Effect.flatMap(Journal, (journal) => journal.commit(batchOf(...args)))

describe.concurrent("a commit whose answer is lost", () => {
  it.scopedLive("counts once: new runs, changes, and ends, told in the end as if nothing had been", () =>
    Effect.gen(function*() {
      const { countOf, holds, proxy, services } = yield* setUp
      yield* Effect.gen(function*() {
        const counters = yield* PgJournal.PgJournalCounters
        const store = yield* PartitionStore
        const owner = yield* takePartition()
        const run = yield* sampleRun()

        yield* proxy.mute
        const inserting = yield* Effect.fork(commit(owner, { inserts: [run] }))
        yield* holds("select 1 from orrery.runs where id = $1", run.id)
        assert.isAbove(yield* proxy.cut, 0)
        assert.strictEqual((yield* Fiber.join(inserting)).duplicates.size, 0)
        assert.deepStrictEqual(yield* store.findRun(owner.partitionId, run.id), run)

        yield* proxy.mute
        const updating = yield* Effect.fork(
          commit(owner, { updates: [updateOf(run, { state: "running", attempt: 7 })] })
        )
        yield* holds("select 1 from orrery.runs where id = $1 and attempt = 7", run.id)
        yield* proxy.cut
        yield* Fiber.join(updating)
        assert.strictEqual((yield* store.findRun(owner.partitionId, run.id))?.attempt, 7)

        yield* proxy.mute
        const finishing = yield* Effect.fork(commit(owner, { finishes: [finishOf(run)] }))
        yield* holds("select 1 from orrery.run_history where id = $1", run.id)
        yield* proxy.cut
        yield* Fiber.join(finishing)
        assert.deepStrictEqual([yield* countOf("runs", run.id), yield* countOf("run_history", run.id)], [0, 1])
        assert.isAtLeast(counters.retries, 3)
        assert.strictEqual(counters.batchesPending, 0)
      }).pipe(Effect.provide(services))
    }))

  it.scopedLive("is one batch of everything at once, with other actors' batches in the same statement", () =>
    Effect.gen(function*() {
      const { countOf, holds, proxy, services } = yield* setUp
      yield* Effect.gen(function*() {
        const owner = yield* takePartition()
        const others = yield* Effect.all(Array.from({ length: 4 }, () => takePartition()))
        const [made, changed, ended] = yield* Effect.all([1, 2, 3].map((seq) => sampleRun({ seq })))
        const theirs = yield* Effect.all(others.map(() => sampleRun()))
        yield* commit(owner, { inserts: [changed!, ended!] })

        yield* proxy.mute
        const committing = yield* Effect.fork(Effect.all([
          commit(owner, {
            inserts: [made!],
            updates: [updateOf(changed!, { attempt: 3 })],
            finishes: [finishOf(ended!)]
          }),
          ...others.map((other, at) => commit(other, { inserts: [theirs[at]!] }))
        ], { concurrency: "unbounded" }))
        yield* holds("select 1 from orrery.runs where id = $1", made!.id)
        yield* Effect.forEach(theirs, (run) => holds("select 1 from orrery.runs where id = $1", run.id)).pipe(
          // Those of a second statement may wait behind the muted ones.
          Effect.timeoutOption("500 millis")
        )
        yield* proxy.cut
        const answers = yield* Fiber.join(committing)

        assert.isTrue(answers.every(({ duplicates }) => duplicates.size === 0))
        for (const run of [made!, changed!, ...theirs]) assert.strictEqual(yield* countOf("runs", run.id), 1)
        assert.strictEqual(yield* countOf("run_history", ended!.id), 1)
      }).pipe(Effect.provide(services))
    }))

  it.scopedLive("is refused when the partition was taken over meanwhile, and the next owner has what it wrote", () =>
    Effect.gen(function*() {
      const { holds, proxy, services } = yield* setUp
      yield* Effect.gen(function*() {
        const partition = samplePartition()
        const old = yield* takePartition(partition)
        const run = yield* sampleRun({ state: "running" })

        yield* proxy.mute
        const inserting = yield* Effect.fork(Effect.flip(commit(old, { inserts: [run] })))
        yield* holds("select 1 from orrery.runs where id = $1", run.id)
        const next = yield* takePartition(partition)
        yield* proxy.cut

        assert.strictEqual((yield* Fiber.join(inserting))._tag, "Fenced")
        assert.deepStrictEqual(next.running, [run])
      }).pipe(Effect.provide(services))
    }))
})
