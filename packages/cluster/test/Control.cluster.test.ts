import { assert, describe, it } from "@effect/vitest"
import { Queues } from "@orrery/core/Queues"
import { Runs } from "@orrery/core/Runs"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { limited } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect } from "effect"

interface Told {
  readonly process: string
  readonly what: string
  readonly at: number
}

const pattern = /limited (begins|ends) \S+ (\d+) ([\d.]+);/
/** What was decided before a pause may reach its worker so much later. */
const underWayMs = 1_000

/** The most that ran at once of those that began from `since` until `until`. */
const together = (told: ReadonlyArray<Told>, since: number, until: number): number => {
  let now = 0
  let most = 0
  // At one instant an end comes before a beginning.
  for (const { at, what } of [...told].sort((a, b) => a.at - b.at || (a.what === "ends" ? -1 : 1))) {
    now += what === "begins" ? 1 : -1
    if (at >= since && at < until) most = Math.max(most, now)
  }
  return most
}

describe("settings of a queue", () => {
  it.scopedLive(
    "hold while its owner is killed",
    () =>
      Effect.gen(function*() {
        const told: Array<Told> = []
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, ownerOf, query } = yield* ClusterRig.start({
          databaseUrl,
          workers: 1,
          workerSlots: 12,
          onLine: (process, line) => {
            const [, what, , at] = pattern.exec(line) ?? []
            if (what !== undefined) told.push({ process, what, at: Number(at) })
          }
        })
        const queues = Context.get(client, Queues)
        const of = { namespace: "default", queue: limited.queue, by: "test" }
        const now = Effect.sync(() => performance.timeOrigin + performance.now())
        const killOwner = Effect.gen(function*() {
          const owner = yield* ownerOf(limited.queue)
          yield* owner.kill("SIGKILL")
          const at = yield* now
          const lines = told.filter((each) => each.process === owner.name)
          const open = lines.filter(({ what }) => what === "begins").length * 2 - lines.length
          for (let n = 0; n < open; n++) told.push({ process: owner.name, what: "ends", at })
        })
        const ended = (count: number) =>
          ClusterRig.eventually(
            query("select 1 from orrery.run_history where task = 'limited'"),
            (rows) => rows.length >= count
          )
        // Each with a key of its own: only the queue's limit holds them back.
        const payloads = Array.from({ length: 120 }, (_, n) => ({ n, key: `k${n}`, ms: 50 }))

        yield* queues.call({ _tag: "setLimits", ...of, limits: { concurrency: 3 } })
        const ids = yield* Effect.provide(limited.enqueueMany(payloads), client)
        yield* ended(15)
        yield* killOwner
        yield* ended(45)
        yield* queues.call({ _tag: "pause", ...of, why: "kill" })
        const pausedAt = yield* now
        yield* killOwner
        yield* Effect.sleep("3 seconds")
        yield* queues.call({ _tag: "setLimits", ...of, limits: { concurrency: 2 } })
        const resumedAt = yield* now
        yield* queues.call({ _tag: "resume", ...of })
        const runs = Context.get(client, Runs)
        const ends = yield* Effect.forEach(ids, (id) => runs.awaitFinal(id), { concurrency: "unbounded" })

        assert.deepStrictEqual([...new Set(ends.map((run) => run.state))], ["succeeded"])
        assert.isTrue(ends.some(({ startedAt }) => startedAt !== null && startedAt >= resumedAt - 1_000))
        const late = told.filter(({ at, what }) => what === "begins" && at > pausedAt + underWayMs && at < resumedAt)
        assert.deepStrictEqual(late, [], "began while the queue was paused")
        // At their limits, or the test shows nothing.
        assert.strictEqual(together(told, 0, pausedAt), 3)
        assert.strictEqual(together(told, resumedAt, Infinity), 2)
      }),
    120_000
  )
})
