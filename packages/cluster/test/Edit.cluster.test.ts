import { assert, describe, it } from "@effect/vitest"
import type { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { nap, ticks } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect } from "effect"

const runsPerQueue = 4
const rounds = Array.from({ length: 15 }, (_, n) => n + 1)

describe("edits", () => {
  it.scopedLive(
    "that were answered hold, whatever owner is killed meanwhile; those of other runs are refused",
    () =>
      Effect.gen(function*() {
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, ownerOf, query } = yield* ClusterRig.start({ databaseUrl, nodes: 3, workers: 1 })
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
        const [moved] = yield* query<{ n: string }>("select count(*) as n from orrery.partitions where epoch > 1")
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
    120_000
  )
})
