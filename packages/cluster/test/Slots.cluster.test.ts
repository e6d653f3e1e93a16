import { assert, describe, it } from "@effect/vitest"
import { Runs } from "@orrery/core/Runs"
import * as RecurringSchedule from "@orrery/core/schedule/RecurringSchedule"
import { Schedules } from "@orrery/core/schedule/Schedules"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import * as RigHistory from "@orrery/testing/rigHistory"
import { heavy, light } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Clock, Context, Effect } from "effect"

const tasks = ["heavy", "light"]

/** The most slots in use at once. */
const inUse = (told: ReadonlyArray<RigHistory.Told>): number =>
  RigHistory.mostTogether(told, ({ task }) => task === "heavy" ? 3 : 1)

describe("slots", () => {
  it.scopedLive(
    "of a worker are never overdrawn, while a worker and the owner of the queue are killed, and heavy runs have their turn",
    () =>
      Effect.gen(function*() {
        const { killed, onLine, told: toldBy } = RigHistory.make(tasks)
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, cluster, ownerOf, query } = yield* ClusterRig.start({
          ...{ databaseUrl, nodes: 2, workers: 2, workerSlots: 0, slots: 4, onLine }
        })
        const payload = (n: number) => ({ n, key: "x", ms: 60 })
        // A stream of light ones from the first moment to the last: the heavy ones come in the middle of it.
        const lights = Array.from({ length: 300 }, (_, n) => payload(n))
        const heavies = Array.from({ length: 30 }, (_, n) => payload(n))
        const first = yield* Effect.provide(light.enqueueMany(lights.slice(0, 100)), client)
        const some = yield* Effect.provide(heavy.enqueueMany(heavies), client)
        const rest = yield* Effect.provide(light.enqueueMany(lights.slice(100)), client)
        const ended = (count: number) =>
          ClusterRig.eventually(
            query("select 1 from orrery.run_history where task in ('heavy', 'light')"),
            (rows) => rows.length >= count
          )

        yield* ended(110)
        const [worker] = cluster.workers
        yield* worker!.kill("SIGKILL")
        killed(worker!.name)
        yield* ended(150)
        const owner = yield* ownerOf(heavy.queue)
        yield* owner.kill("SIGKILL")
        const runs = Context.get(client, Runs)
        const all = [...first, ...some, ...rest]
        const ends = yield* Effect.forEach(all, (id) => runs.awaitFinal(id), { concurrency: "unbounded" })

        assert.deepStrictEqual([...new Set(ends.map((run) => run.state))], ["succeeded"])
        const told = toldBy()
        const used = cluster.workers.map(({ name }) => inUse(told.filter(({ process }) => process === name)))
        for (const most of used) assert.isAtMost(most, 4)
        // All in use at some time, or the test shows nothing.
        assert.strictEqual(Math.max(...used), 4)
        // The heavy ones were enqueued before the last two hundred, and are not left for the end.
        const began = (task: string) =>
          told.filter((each) => each.task === task && each.what === "begins").map(({ at }) => at).sort((a, b) => a - b)
        assert.isBelow(began("heavy").at(-1)!, began("light").at(-1)!)
      }),
    180_000
  )

  it.scopedLive(
    "are for a backfill by half, while the owner of its queue is killed, and the next one",
    () =>
      Effect.gen(function*() {
        const { onLine, told: toldBy } = RigHistory.make(tasks)
        const databaseUrl = yield* TestPostgres.freshDatabase
        const { client, ownerOf, query } = yield* ClusterRig.start({
          ...{ databaseUrl, nodes: 3, workers: 1, workerSlots: 0, slots: 12, onLine }
        })
        const schedules = Context.get(client, Schedules)
        const hour = 3_600_000
        const until = Math.floor((yield* Clock.currentTimeMillis) / hour) * hour - hour
        const schedule = RecurringSchedule.make("filled", {
          version: 1,
          task: light,
          payload: { n: 0, key: "filled", ms: 150 },
          every: "1 hour",
          policy: { overlap: "allowAll" }
        })
        yield* Effect.provide(RecurringSchedule.reconcile([schedule]), client)
        const range = { from: until - 119 * hour, until }
        yield* schedules.call({ _tag: "backfill", id: schedule.id, ...range, order: "oldest", perMinute: 6_000 })
        const ended = (count: number) =>
          ClusterRig.eventually(
            query("select 1 from orrery.run_history where task = 'light'"),
            (rows) => rows.length >= count
          )

        yield* ended(10)
        for (const count of [30, 60]) {
          const owner = yield* ownerOf(light.queue)
          yield* owner.kill("SIGKILL")
          yield* ended(count)
        }
        yield* ended(120)

        const told = toldBy()
        const most = inUse(told)
        assert.isAtMost(most, 6, "more than half of the worker's slots")
        assert.isAtLeast(most, 2, "or the test shows nothing")
      }),
    180_000
  )
})
