import { assert, describe, it } from "@effect/vitest"
import { Runs } from "@orrery/core/Runs"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import * as RigHistory from "@orrery/testing/rigHistory"
import { inOrder, limited } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect } from "effect"

/** Of attempts that take 60 ms. */
const justBegunMs = 30

describe("limits", () => {
  it.scopedLive(
    "hold while the owner of the queue, and a worker, are killed",
    () =>
      Effect.gen(function*() {
        const { hasJustBegun, killed, onLine, told: toldBy } = RigHistory.make(["limited", "in-order"])
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, cluster, ownerOf, query } = yield* ClusterRig.start({ databaseUrl, workers: 2, onLine })
        const keys = ["a", "b", "c"]
        const payloads = Array.from({ length: 150 }, (_, n) => ({ n, key: keys[n % keys.length]!, ms: 60 }))
        const order = Array.from({ length: 45 }, (_, n) => ({ n, key: `in-${keys[n % keys.length]!}`, ms: 60 }))
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
        for (const key of keys) {
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
    120_000
  )
})
