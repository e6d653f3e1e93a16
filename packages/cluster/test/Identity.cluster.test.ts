import { assert, describe, it } from "@effect/vitest"
import * as RunsClient from "@orrery/api/RunsClient"
import type { EnqueueResult } from "@orrery/core/Task"
import { Runs } from "@orrery/core/Runs"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { once, single } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect, Layer } from "effect"

const clients = 50
const keys = Array.from({ length: 16 }, (_, n) => `order-${n}`)
const napMs = 1_500
/** The owner's picture of the database clock is behind it by an answer's way at most. */
const clockMs = 1_000

interface Ended {
  readonly id: string
  readonly key: string
  readonly created_at: number
  readonly finished_at: number
}

describe("identity", () => {
  it.scopedLive(
    "makes one run of a key, raced by 50 clients over 3 nodes while the owner is killed",
    () =>
      Effect.gen(function*() {
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, cluster, ownerOf, query } = yield* ClusterRig.start({ databaseUrl, nodes: 3, workers: 1 })
        const { addresses } = cluster
        // Each begins at another node, with connections of its own.
        const all = yield* Effect.forEach(Array.from({ length: clients }, (_, n) => n), (n) =>
          Layer.build(RunsClient.layer({
            nodes: [...addresses.slice(n % addresses.length), ...addresses.slice(0, n % addresses.length)]
          })))
        const answers = new Map<string, Array<EnqueueResult>>(keys.map((key) => [key, []]))
        const askAll = (n: number) =>
          Effect.forEach(keys, (key) =>
            once.enqueueDetailed({ key, client: n }).pipe(
              Effect.tap((answer) => Effect.sync(() => answers.get(key)!.push(answer))),
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
        yield* ClusterRig.eventually(query<{ n: string }>("select count(*) as n from orrery.runs"), ([row]) => row!.n === "0")
        const ended = yield* query<Ended>(
          `select id, payload::json ->> 'key' as key, created_at, finished_at::float8 from orrery.run_history
           where task in ('once', 'single') order by created_at`
        )
        for (const key of keys) assert.lengthOf(ended.filter((run) => run.key === key), 1)
        for (const key of ["single-0", "single-1"]) {
          const inOrder = ended.filter((run) => run.key === key)
          assert.isAbove(inOrder.length, 0)
          inOrder.forEach((run, at) => {
            if (at > 0) assert.isAtLeast(run.created_at, inOrder[at - 1]!.finished_at - clockMs, `two of ${key} at once`)
          })
        }
        const [row] = yield* query<{ epoch: string }>("select epoch from orrery.partitions where queue = $1", [once.queue])
        assert.isAtLeast(Number(row!.epoch), 2)
      }),
    120_000
  )
})
