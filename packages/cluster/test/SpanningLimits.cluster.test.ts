import { assert, describe, it } from "@effect/vitest"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { mostInWindow } from "@orrery/testing/limitSamples"
import * as RedisServer from "@orrery/testing/RedisServer"
import * as RigHistory from "@orrery/testing/rigHistory"
import { asked, asking, gpu, partner, permitted, spanned } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Redacted } from "effect"

/** By how much the clocks of owners, as they estimate that of the database, may differ, ms. */
const wayMs = 100
/** Between the word to a worker and the line of its handler, in a process that stands still now and then, ms. */
const handlerMs = 350

/** Whoever keeps a strict limit of permits anew gives nothing for one and a half of it: by default that is longer than all else. */
const leaseMs = 4_000

const spannedPerQueue = 80
const permittedPerQueue = 30
const askingRuns = 30

/** Of nodes with or without a Redis; what their attempts tell. */
const start = (withRedis: boolean) =>
  Effect.gen(function*() {
    const { killed, onLine, told } = RigHistory.make(["spanned", "permitted", "asking"])
    const redis = withRedis ? yield* RedisServer.start({}) : undefined
    const rig = yield* ClusterRig.start({
      databaseUrl: yield* TestPostgres.freshDatabase,
      workers: 1,
      workerSlots: 8,
      env: {
        ORRERY_LEASE_MS: String(leaseMs),
        ...redis === undefined ? {} : { ORRERY_REDIS_URL: Redacted.value(redis.url) }
      },
      onLine
    })
    const ended = (task: string, count: number) =>
      ClusterRig.eventually(
        rig.query<{ count: string }>(`select count(*) from orrery.run_history where task like $1`, [`${task}%`]),
        ([row]) => Number(row!.count) >= count
      )
    /** By the rows: a client that has seen each node die knows of none that took their place. */
    const allSucceed = (task: string, count: number) =>
      Effect.gen(function*() {
        yield* ended(task, count)
        const [rows] = yield* rig.query<{ failed: string }>(
          "select count(*) as failed from orrery.run_history where task like $1 and state <> 5",
          [`${task}%`]
        )
        assert.strictEqual(rows!.failed, "0")
      })
    return { ...rig, killed, told, ended, allSucceed }
  })

describe.each([false, true])("limits over queues (Redis: %s)", (withRedis) => {
  it.scopedLive(
    "hold a rate over eight queues, a number of attempts at once over four, and a rate that handlers ask for, on three nodes, each of which is killed",
    () =>
      Effect.gen(function*() {
        const { allSucceed, client, cluster, ended, killed, ownerOf, query, told } = yield* start(withRedis)
        const payloads = (queue: number, count: number, ms: number) =>
          Array.from({ length: count }, (_, n) => ({ n: queue * count + n, key: "k", ms }))
        yield* Effect.provide(
          Effect.all([
            asking.enqueueMany(payloads(0, askingRuns, 1)),
            Effect.forEach(permitted, (task, queue) => task.enqueueMany(payloads(queue, permittedPerQueue, 150))),
            Effect.forEach(spanned, (task, queue) => task.enqueueMany(payloads(queue, spannedPerQueue, 5)))
          ]),
          client
        )
        const kill = (node: ClusterRig.Rig["cluster"]["nodes"][number]) =>
          Effect.map(node.kill("SIGKILL"), () => killed(node.name))
        // Of both, in the middle of their work.
        yield* ended("permitted", 15)
        const first = yield* ownerOf(permitted[0]!.queue)
        yield* kill(first)
        for (const [at, node] of cluster.nodes.filter((each) => each !== first).entries()) {
          yield* ended("spanned", (at + 1) * 200)
          yield* kill(node)
        }
        yield* allSucceed("permitted", permitted.length * permittedPerQueue)
        yield* allSucceed("asking", askingRuns)
        yield* allSucceed("spanned", spanned.length * spannedPerQueue)

        const { limit, perMs } = partner.rule
        const rows = yield* query<{ at: string }>(
          "select started_at as at from orrery.run_history where task like 'spanned-%'"
        )
        assert.strictEqual(rows.length, spanned.length * spannedPerQueue)
        // As their owners decided, by the clock of the database; and as their handlers began.
        assert.isAtMost(mostInWindow(rows.map((row) => Number(row.at)), perMs - wayMs), limit)
        const begins = told().filter(({ task, what }) => task === "spanned" && what === "begins").map(({ at }) => at)
        assert.isAtMost(mostInWindow(begins, perMs - handlerMs), limit)
        // All of them would have begun at once.
        assert.isAbove(Math.max(...begins) - Math.min(...begins), (begins.length / limit - 2) * perMs)
        const most = RigHistory.mostTogether(told().filter(({ task }) => task === "permitted"))
        assert.isAtMost(most, gpu.rule.limit)
        // At its limit, or the test shows nothing.
        assert.isAtLeast(most, gpu.rule.limit - 1)
        const through = told().filter(({ task, what }) => task === "asking" && what === "begins")
        assert.isAtMost(mostInWindow(through.map(({ at }) => at), asked.rule.perMs - handlerMs), asked.rule.limit)
        // In nodes and in the worker, which has no Redis where they have none.
        const places = new Set(through.map(({ process }) => process))
        assert.isTrue(places.has("worker-1") && places.size > 1, [...places].join())
      }),
    150_000
  )
})
