/**
 * What the owner of a queue has promised holds when it is killed: identity, limits, edits. One cluster for all of it; nodes and workers
 * come back, as others.
 */
import { assert, layer } from "@effect/vitest"
import * as RunsClient from "@orrery/api/RunsClient"
import type { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import type { EnqueueResult } from "@orrery/core/Task"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import * as RigHistory from "@orrery/testing/rigHistory"
import { inOrder, limited, nap, once, single, ticks } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect, Layer, type Scope } from "effect"

const clients = 50
const keys = Array.from({ length: 16 }, (_, n) => `order-${n}`)
const napMs = 1_500
/** The owner's picture of the database clock is behind it by an answer's way at most. */
const clockMs = 1_000

const limitedKeys = ["a", "b", "c"]
/** Of attempts that take 60 ms. */
const justBegunMs = 30

const runsPerQueue = 4
const rounds = Array.from({ length: 15 }, (_, n) => n + 1)

const timeout = 120_000

interface Ended {
  readonly id: string
  readonly key: string
  readonly created_at: number
  readonly finished_at: number
}

class Rig extends Context.Tag("@orrery/cluster/test/OwnerKilled/Rig")<
  Rig,
  Omit<ClusterRig.Rig, "client"> & {
    /** Of limited attempts. */
    readonly history: RigHistory.RigHistory
    /** Of the nodes as they are now; waits for those that come back. */
    readonly addresses: Effect.Effect<ReadonlyArray<string>>
    /** One that has seen each node die knows of none that took their place. */
    readonly newClient: Effect.Effect<ClusterRig.Rig["client"], never, Scope.Scope>
  }
>() {}

const rig = Layer.scoped(
  Rig,
  Effect.gen(function*() {
    const history = RigHistory.make(["limited", "in-order"])
    const databaseUrl = yield* TestPostgres.freshDatabase
    const started = yield* ClusterRig.start({ databaseUrl, nodes: 3, workers: 2, onLine: history.onLine })
    const addresses = Effect.forEach(
      started.cluster.nodes,
      (node) => Effect.map(node.ready, ({ dataAddress }) => dataAddress)
    ).pipe(Effect.orDie)
    const newClient = Effect.flatMap(addresses, (nodes) => Layer.build(RunsClient.layer({ nodes })))
    return { ...started, history, addresses, newClient }
  })
)

layer(rig, { excludeTestServices: true, timeout })("when its owner is killed", (it) => {
  it.scoped(
    "identity holds: one run of a key, raced by 50 clients over 3 nodes",
    () =>
      Effect.gen(function*() {
        const { addresses, newClient, ownerOf, query } = yield* Rig
        const client = yield* newClient
        const nodes = yield* addresses
        // Each begins at another node, with connections of its own.
        const all = yield* Effect.forEach(Array.from({ length: clients }, (_, n) => n), (n) =>
          Layer.build(RunsClient.layer({
            nodes: [...nodes.slice(n % nodes.length), ...nodes.slice(0, n % nodes.length)]
          })))
        const answers = new Map<string, Array<EnqueueResult>>(keys.map((key) => [key, []]))
        const askAll = (n: number) =>
          Effect.forEach(keys, (key) =>
            once.enqueueDetailed({ key, client: n }).pipe(
              Effect.tap((answer) =>
                Effect.sync(() =>
                  answers.get(key)!.push(answer)
                )
              ),
              Effect.zipRight(single.enqueue({ key: `single-${n % 2}`, ms: napMs })),
              Effect.zipLeft(Effect.sleep("40 millis"))
            )).pipe(Effect.provide(all[n]!))

        const racing = yield* Effect.fork(
          Effect.forEach(all.map((_, n) => n), askAll, { concurrency: "unbounded", discard: true })
        )
        yield* ClusterRig.eventually(
          Effect.sync(() => answers.get(keys[4]!)!.length),
          (count) => count > 0
        )
        const owner = yield* ownerOf(once.queue)
        yield* owner.kill("SIGKILL")
        yield* racing.await
        assert.strictEqual(yield* Effect.map(racing.await, (exit) => exit._tag), "Success")

        const runs = Context.get(client, Runs)
        for (const [key, found] of answers) {
          assert.lengthOf(found, clients)
          assert.lengthOf(new Set(found.map(({ id }) => id)), 1, `runs of ${key}`)
          assert.lengthOf(found.filter(({ isNew }) => isNew), 1, `makers of ${key}`)
          assert.strictEqual((yield* runs.awaitFinal(found[0]!.id)).state, "succeeded")
        }
        yield* ClusterRig.eventually(
          query<{ n: string }>("select count(*) as n from orrery.runs"),
          ([row]) => row!.n === "0"
        )
        const ended = yield* query<Ended>(
          `select id, payload::json ->> 'key' as key, created_at, finished_at::float8 from orrery.run_history
           where task in ('once', 'single') order by created_at`
        )
        for (const key of keys) assert.lengthOf(ended.filter((run) => run.key === key), 1)
        for (const key of ["single-0", "single-1"]) {
          const inOrder = ended.filter((run) => run.key === key)
          assert.isAbove(inOrder.length, 0)
          inOrder.forEach((run, at) => {
            if (at > 0) {
              assert.isAtLeast(run.created_at, inOrder[at - 1]!.finished_at - clockMs, `two of ${key} at once`)
            }
          })
        }
        const [row] = yield* query<{ epoch: string }>("select epoch from orrery.partitions where queue = $1", [
          once.queue
        ])
        assert.isAtLeast(Number(row!.epoch), 2)
      }),
    timeout
  )

  it.scoped(
    "limits hold, and when a worker is killed",
    () =>
      Effect.gen(function*() {
        const { cluster, history: { hasJustBegun, killed, told: toldBy }, newClient, ownerOf, query } = yield* Rig
        const client = yield* newClient
        const payloads = Array.from(
          { length: 150 },
          (_, n) => ({ n, key: limitedKeys[n % limitedKeys.length]!, ms: 60 })
        )
        const order = Array.from(
          { length: 45 },
          (_, n) => ({ n, key: `in-${limitedKeys[n % limitedKeys.length]!}`, ms: 60 })
        )
        const ids = yield* Effect.provide(
          Effect.all([limited.enqueueMany(payloads), inOrder.enqueueMany(order)]),
          client
        )
        const ended = (count: number) =>
          ClusterRig.eventually(
            query("select 1 from orrery.run_history where task in ('limited', 'in-order')"),
            (rows) => rows.length >= count
          )

        yield* ended(20)
        const owner = yield* ownerOf(limited.queue)
        yield* owner.kill("SIGKILL")
        killed(owner.name)
        yield* ended(90)
        const [worker] = cluster.workers
        yield* Effect.sleep("2 millis").pipe(
          Effect.repeat({ until: () => hasJustBegun(worker!.name, justBegunMs) }),
          Effect.timeoutOption("10 seconds")
        )
        yield* worker!.kill("SIGKILL")
        killed(worker!.name)
        const runs = Context.get(client, Runs)
        const ends = yield* Effect.forEach(ids.flat(), (id) => runs.awaitFinal(id), { concurrency: "unbounded" })

        assert.deepStrictEqual([...new Set(ends.map((run) => run.state))], ["succeeded"])
        // What the processes have said may still be on its way.
        const hasEnded = (told: ReturnType<typeof toldBy>) =>
          new Set(told.flatMap(({ n, task, what }) => what === "ends" ? `${task} ${n}` : [])).size === ids.flat().length
        const told = yield* ClusterRig.eventually(Effect.sync(toldBy), hasEnded)
        const most = RigHistory.together(told, { groupOf: ({ key }) => key })
        for (const key of limitedKeys) {
          assert.isAtMost(most.get(key) ?? 0, 2, `${key} went over its limit`)
          assert.isAtMost(most.get(`in-${key}`) ?? 0, 1, `two of in-${key} at once`)
          // Lines of different processes come as they may: their times count.
          const begun = told.filter((each) => each.key === `in-${key}` && each.what === "begins")
            .sort((a, b) => a.at - b.at)
            .map(({ n }) => n)
          assert.deepStrictEqual(begun, [...begun].sort((a, b) => a - b), `in-${key} out of order`)
        }
        // Both at their limits, or the test shows nothing.
        assert.strictEqual(most.get("a"), 2)
        assert.isAbove(told.filter(({ what }) => what === "begins").length, payloads.length + order.length)
      }),
    timeout
  )

  it.scoped(
    "edits that were answered hold; those of other runs are refused",
    () =>
      Effect.gen(function*() {
        const { newClient, ownerOf, query } = yield* Rig
        const client = yield* newClient
        const runs = Context.get(client, Runs)
        const all = yield* Effect.forEach(ticks, (task) =>
          Effect.map(
            task.enqueueMany(Array.from({ length: runsPerQueue }, () => ({ n: 0 })), { delay: "1 hour" }),
            (ids) => ids.map((id) => ({ id, task }))
          )).pipe(Effect.map((found) => found.flat()), Effect.provide(client))
        const acked = new Map<RunId, number>()
        let answers = 0
        const editAll = Effect.forEach(all, ({ id, task }) =>
          Effect.forEach(rounds, (n) =>
            task.edit(id, { payload: { n }, priority: n % 10 }).pipe(
              Effect.tap(() =>
                Effect.sync(() => {
                  acked.set(id, n)
                  answers += 1
                })
              ),
              Effect.zipLeft(Effect.sleep("20 millis"))
            )), { concurrency: "unbounded", discard: true })

        const editing = yield* Effect.fork(Effect.provide(editAll, client))
        for (const [at, task] of [ticks[0]!, ticks[5]!].entries()) {
          yield* ClusterRig.eventually(
            Effect.sync(() =>
              answers
            ),
            (count) =>
              count >= 150 * (at + 1)
          )
          const owner = yield* ownerOf(task.queue)
          yield* owner.kill("SIGKILL")
        }
        assert.strictEqual((yield* editing.await)._tag, "Success")
        const waiting = yield* query<{ payload: string; priority: number }>(
          "select payload, priority from orrery.runs where task like 'tick-%'"
        )
        const due = yield* Effect.provide(
          Effect.forEach(all, ({ id, task }) => task.edit(id, { delay: 200 }), { concurrency: 16 }),
          client
        )
        const ends = yield* Effect.provide(
          Effect.forEach(all, ({ id, task }) => Effect.zip(task.result(id), runs.get(id)), { concurrency: 16 }),
          client
        )

        const last = rounds.at(-1)!
        assert.deepStrictEqual([...new Set(acked.values())], [last])
        assert.deepStrictEqual(new Set(waiting.map(({ payload }) => payload)), new Set([`{"n":${last}}`]))
        assert.deepStrictEqual(new Set(waiting.map(({ priority }) => priority)), new Set([last % 10]))
        for (const [at, [result, run]] of ends.entries()) {
          assert.strictEqual(result, last + 1)
          assert.isAtLeast(run.startedAt!, due[at]!.scheduledAt, "early")
        }
        const [moved] = yield* query<{ n: string }>(
          "select count(*) as n from orrery.partitions where epoch > 1 and queue = any($1)",
          [ticks.map(({ queue }) => queue)]
        )
        assert.isAbove(Number(moved!.n), 0)

        const napping = yield* Effect.provide(nap.enqueue({ ms: 60_000 }), client)
        yield* ClusterRig.eventually(runs.get(napping), ({ state }) => state === "running")
        const refused = yield* Effect.forEach(
          [napping, all[0]!.id],
          (id) => Effect.flip(runs.edit(id, { priority: 1 }))
        )
        assert.deepStrictEqual(refused.map(({ message }) => message), [
          `run ${napping} is running, only one that waits can be edited`,
          `run ${all[0]!.id} is succeeded, only one that waits can be edited`
        ])
        assert.strictEqual(yield* runs.deleteFinal([napping, ...all.map(({ id }) => id)]), all.length)
        const gone = yield* Effect.flip(runs.edit(all[0]!.id, { priority: 1 }))
        assert.strictEqual(gone._tag, "RunNotFound")
      }),
    timeout
  )
})
