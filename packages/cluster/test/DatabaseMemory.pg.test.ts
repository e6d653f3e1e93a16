/** Databases that are not what they were, on a real server; what a restore does is done to the tables. */
import { SqlClient } from "@effect/sql"
import type { NodeHealth } from "@orrery/api/NodeRpcs"
import { EndCache } from "@orrery/core/EndCache"
import { EndStore } from "@orrery/core/EndStore"
import * as MemoryEndStore from "@orrery/core/MemoryEndStore"
import * as NodeConfig from "@orrery/core/NodeConfig"
import type { PartitionStore } from "@orrery/core/PartitionStore"
import type { Run } from "@orrery/core/Run"
import { runIdMadeAt, samplePartition, takePartition } from "@orrery/testing/storeSamples"
import * as TestStore from "@orrery/testing/TestStore"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Option, type Scope } from "effect"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as TestNode from "../../api/test/TestNode.js"
import * as DatabaseMemory from "../src/DatabaseMemory.js"
import * as DatabaseRecord from "../src/DatabaseRecord.js"
import * as Ends from "../src/Ends.js"
import * as NodeIdentity from "../src/NodeIdentity.js"

const identityOf = (nodeId: string) =>
  NodeIdentity.NodeIdentity.of({
    nodeId,
    host: "127.0.0.1",
    runnerPort: 1,
    dataPort: 2,
    runnerAddress: "127.0.0.1:1",
    dataAddress: "127.0.0.1:2"
  })

/** A node's memory of the database, from its start until the scope closes. Written down as a node is. */
const startNode = (options: Partial<NodeConfig.Values> = {}, nodeId = randomUUID() as string) =>
  Effect.gen(function*() {
    const { url } = yield* TestStore.TestDatabase
    const sql = yield* SqlClient.SqlClient
    const context = yield* Layer.build(
      DatabaseMemory.layer.pipe(
        Layer.provide(Layer.succeed(NodeIdentity.NodeIdentity, identityOf(nodeId))),
        Layer.provide(NodeConfig.layer({ databaseUrl: url, ...options }))
      )
    )
    yield* sql`insert into orrery.nodes (node_id, runner_address, data_address)
      values (${nodeId}::uuid, ${`127.0.0.1:1`}, ${`127.0.0.1:2`})`
    return Context.get(context, DatabaseMemory.DatabaseMemory)
  })

const reasonOf = <A, R>(start: Effect.Effect<A, NodeIdentity.StartFailed | unknown, R>) =>
  Effect.map(Effect.flip(start), (error) => {
    assert.instanceOf(error, NodeIdentity.StartFailed)
    assert.isFalse(error.isTemporary)
    return error.reason
  })

const recordedAs = (change: object) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql`update orrery.cluster_settings set value = value || ${JSON.stringify(change)}::jsonb where key = 'database'`
  )

/** As an older copy of it would be. */
const loseEpochs = (by: number) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`update orrery.partitions set epoch = greatest(1, epoch - ${by}::bigint)`
  )

const stateFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(path.join(tmpdir(), "orrery-state-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const takeOften = Effect.gen(function*() {
  const partition = samplePartition()
  for (let n = 0; n < 5; n++) yield* takePartition(partition)
})

const test = <E>(body: Effect.Effect<void, E, Layer.Layer.Success<typeof TestStore.layer> | Scope.Scope>) =>
  body.pipe(Effect.provide(Layer.fresh(TestStore.layer)))

/** Ended, and made some time ago. */
const endedRun: Run = {
  id: runIdMadeAt(0),
  namespace: "default",
  queue: "ends",
  partition: 0,
  task: "double",
  state: "succeeded",
  priority: 5,
  createdAt: 1,
  scheduledAt: 1,
  startedAt: 2,
  finishedAt: 3,
  attempt: 1,
  payload: "1",
  result: "2",
  failure: null,
  worker: "w",
  waitsFor: null
}

describe.concurrent("ends that are kept outside", () => {
  it.scopedLive("are believed by all who know the database, and no more once it was accepted", () =>
    test(Effect.gen(function*() {
      const store = Layer.succeed(EndStore, yield* MemoryEndStore.make())
      const open = Effect.map(
        Layer.build(Layer.provide(Ends.layer, store)),
        (context) => Context.get(context, EndCache)
      )
      const [one, other] = yield* Effect.all([open, open], { concurrency: 2 })
      one.keep(endedRun)

      const before = yield* other.find(endedRun.id)
      yield* DatabaseRecord.accept
      const after = yield* Effect.flatMap(open, (ends) => ends.find(endedRun.id))

      assert.deepStrictEqual(before, endedRun)
      assert.isUndefined(after)
    })))
})

describe.concurrent("a node that starts", () => {
  it.scopedLive("writes the database down once, and starts again and again", () =>
    test(Effect.gen(function*() {
      const first = yield* startNode()
      const second = yield* startNode()

      assert.strictEqual(first.told()?.incarnation, second.told()?.incarnation)
      const found = yield* DatabaseRecord.read(randomUUID())
      assert.strictEqual(found.recorded?.incarnation, first.told()?.incarnation)
      assert.deepInclude(found.recorded, found.actual)
      assert.match(String(found.actual.system), /^\d+$/)
      assert.isAbove(found.actual.timeline!, 0)
    })))

  it.scopedLive("refuses a database that was recorded on another server, and so does every other until it is accepted", () =>
    test(Effect.gen(function*() {
      yield* Effect.scoped(startNode())
      yield* takeOften
      const before = yield* DatabaseRecord.read(randomUUID())
      const sql = yield* SqlClient.SqlClient
      yield* sql`insert into orrery.schedule_partitions (partition, epoch, owner, taken_at) values (3, 7, 'node', now())`
      yield* recordedAs({ system: "1" })

      assert.include(yield* reasonOf(startNode()), "recorded on server 1")
      // Also when the difference is gone: an operator has to look.
      yield* recordedAs({ system: before.actual.system })
      assert.include(yield* reasonOf(startNode()), "recorded on server 1")
      const accepted = yield* DatabaseRecord.accept
      const node = yield* startNode()

      assert.strictEqual(node.told()?.incarnation, accepted.incarnation)
      assert.deepStrictEqual(accepted.previous, [before.recorded!.incarnation])
      assert.isAtLeast(node.told()!.epochs, before.epochs + DatabaseRecord.epochsSkipped)
      const [schedules] = yield* sql<{ epoch: number; owner: string }>`
        select epoch::float8 as epoch, owner from orrery.schedule_partitions where partition = 3`
      assert.deepStrictEqual(schedules, { epoch: 7 + DatabaseRecord.epochsSkipped, owner: "nobody" })
    })))

  it.scopedLive("refuses a copy in another database, an older timeline, and a newer one unless told otherwise", () =>
    test(Effect.gen(function*() {
      yield* Effect.scoped(startNode())
      const { actual } = yield* DatabaseRecord.read(randomUUID())
      const fresh = Effect.zipRight(DatabaseRecord.accept, Effect.void)

      yield* recordedAs({ database: 1 })
      assert.include(yield* reasonOf(startNode()), "recorded as database 1")
      yield* fresh
      yield* recordedAs({ timeline: actual.timeline! + 1 })
      assert.include(yield* reasonOf(startNode()), "timeline")
      yield* fresh
      yield* recordedAs({ timeline: actual.timeline! - 1 })
      assert.include(yield* reasonOf(startNode()), "recovered from a backup, or a standby was promoted")
      yield* fresh
      yield* recordedAs({ timeline: actual.timeline! - 1 })
      yield* startNode({ newTimeline: "accept" })
      assert.strictEqual((yield* DatabaseRecord.read(randomUUID())).recorded?.timeline, actual.timeline)
    })))

  it.scopedLive("refuses a database that a running node remembers further on", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const first = yield* Effect.scoped(startNode())
      const { incarnation } = first.told()!
      const peerId = randomUUID()
      let told: NodeHealth["database"] = { incarnation, epochs: 0 }
      const peer = yield* TestNode.make({
        Health: () =>
          Effect.sync(() => ({
            nodeId: peerId,
            notReady: [],
            locksConfirmedMsAgo: 0,
            commitsWaitingMs: 0,
            lagMs: 0,
            heapPercent: 1,
            partitions: 0,
            workers: 0,
            unaccounted: 0,
            signals: null,
            ends: null,
            database: told
          }))
      })
      yield* sql`insert into orrery.nodes (node_id, runner_address, data_address)
        values (${peerId}::uuid, ${"127.0.0.1:9"}, ${peer.address})`

      yield* Effect.scoped(startNode())
      told = { incarnation, epochs: 100 }
      assert.include(yield* reasonOf(startNode()), `node ${peerId} remembers that the epochs had come to 100`)
      yield* DatabaseRecord.accept
      yield* sql`insert into orrery.nodes (node_id, runner_address, data_address)
        values (${peerId}::uuid, ${"127.0.0.1:9"}, ${peer.address})`
      // What it remembers has been given up; what it makes of that is its own business.
      yield* startNode()
    })))

  it.scopedLive("refuses an older database by its state file, though no other node is there, until it is accepted", () =>
    test(Effect.gen(function*() {
      const stateDir = yield* stateFolder
      yield* takeOften
      yield* Effect.scoped(startNode({ stateDir }))
      yield* loseEpochs(2)

      assert.include(yield* reasonOf(startNode({ stateDir })), "the state file of this node")
      yield* DatabaseRecord.accept
      yield* Effect.scoped(startNode({ stateDir }))
      yield* Effect.scoped(startNode({ stateDir }))

      // A folder of another cluster costs this node its start, and nobody else.
      yield* recordedAs({ incarnation: randomUUID() })
      assert.include(yield* reasonOf(startNode({ stateDir })), "ORRERY_STATE_DIR")
      yield* startNode()
    })))
})

describe.concurrent("a node that leaves", () => {
  it.scopedLive("writes down what it took over last, however soon it goes after that", () =>
    test(Effect.gen(function*() {
      const stateDir = yield* stateFolder
      yield* Effect.scoped(Effect.gen(function*() {
        const node = yield* startNode({ stateDir })
        yield* takeOften
        node.verifySoon()
        yield* node.rest
      }))
      yield* loseEpochs(1)

      assert.include(yield* reasonOf(startNode({ stateDir })), "the epochs had come to 5, and they are at 4")
    })))

  it.scopedLive("does not wait for a database that does not answer", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const node = yield* startNode()
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`lock table orrery.partitions in access exclusive mode`
        node.verifySoon()
        // As a finalizer does, and not by the connection that holds the lock.
        const rest = Effect.promise(() => Effect.runPromise(Effect.uninterruptible(node.rest)))
        const [took] = yield* Effect.timed(rest)
        assert.isAtLeast(Duration.toMillis(took), 1_900)
        assert.isBelow(Duration.toMillis(took), 10_000)
      }))
    })))
})

describe.concurrent("a node that runs", () => {
  const regressedBy = (change: Effect.Effect<unknown, unknown, SqlClient.SqlClient | PartitionStore>) =>
    Effect.gen(function*() {
      yield* takeOften
      const node = yield* startNode()
      node.verifySoon()
      yield* Effect.sleep("600 millis")
      yield* change
      node.verifySoon()
      const reason = yield* Effect.timeout(node.regressed, "10 seconds")
      assert.include(yield* reasonOf(startNode()), reason)
      return reason
    })

  it.scopedLive("notices that epochs went back", () =>
    test(Effect.gen(function*() {
      assert.include(yield* regressedBy(loseEpochs(1)), "epochs had come to 5, and they are at 4")
    })))

  it.scopedLive("notices that it is not written down any more: the backup is from before its start", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      assert.include(yield* regressedBy(sql`delete from orrery.nodes`), "is not any more")
    })))

  it.scopedLive("does not take it for a loss that it strikes itself off as it leaves", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const node = yield* startNode()
      node.verifySoon()
      yield* node.rest
      yield* sql`delete from orrery.nodes`
      node.verifySoon()

      // Looked at, it would have been found within this time, and no node would start any more.
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(node.regressed, "1 second")))
      yield* startNode()
    })))

  it.scopedLive("notices that the tables are gone", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const node = yield* startNode()
      // The stores still dial their connections and read the tables, each in its own order: PostgreSQL may end either for the other.
      yield* Effect.retry(sql`drop schema orrery cascade`, { times: 5 })
      node.verifySoon()

      assert.include(yield* Effect.timeout(node.regressed, "10 seconds"), "tables are gone")
    })))

  it.scopedLive("notices an epoch that was given out before, at the take-over itself", () =>
    test(Effect.gen(function*() {
      const node = yield* startNode()
      // Two at once, the answers of which come in the other order.
      const [first, second] = [node.takingOver("a"), node.takingOver("a")]
      assert.isTrue(second(7))
      assert.isTrue(first(6))
      assert.isTrue(node.takingOver("b")(3))

      assert.isFalse(node.takingOver("a")(7))
      // Also when it has come further since.
      assert.isFalse(node.takingOver("a")(9))
      assert.isFalse(node.isTrusted())

      assert.include(yield* Effect.timeout(node.regressed, "10 seconds"), "under epoch 7, and was given 7")
    })))

  it.scopedLive("goes on through restarts of the database that lose nothing", () =>
    test(Effect.gen(function*() {
      const node = yield* startNode()
      for (let n = 0; n < 3; n++) {
        yield* takeOften
        node.verifySoon()
        yield* Effect.sleep("300 millis")
      }
      assert.strictEqual(
        yield* Effect.timeoutTo(node.regressed, {
          duration: "500 millis",
          onSuccess: (reason) => reason,
          onTimeout: () => "nothing"
        }),
        "nothing"
      )
      assert.strictEqual(node.told()?.epochs, 15)
    })))
})

describe.concurrent("a node with the address of another", () => {
  it.scopedLive("does not start while that one holds its lock sessions", () =>
    test(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const other = randomUUID()
      const findTwin = NodeIdentity.findTwin.pipe(
        Effect.provideService(NodeIdentity.NodeIdentity, identityOf(randomUUID()))
      )
      yield* sql`insert into orrery.nodes (node_id, runner_address, data_address)
        values (${other}::uuid, ${"127.0.0.1:9"}, ${"127.0.0.1:2"})`

      // A row that a killed node has left.
      assert.isUndefined(yield* findTwin)
      const client = yield* TestStore.ownClient
      yield* TestStore.query(client, `set application_name = 'orrery-lock-${other}'`)
      assert.strictEqual(yield* findTwin, other)
    })))
})
