import { assert, describe, it } from "@effect/vitest"
import { Runs } from "@orrery/core/Runs"
import * as ClusterRig from "@orrery/testing/ClusterRig"
import { inOrder, limited } from "@orrery/testing/rigTasks"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Context, Effect } from "effect"

interface Told {
  readonly process: string
  readonly task: string
  readonly what: string
  readonly key: string
  readonly n: number
  readonly at: number
}

/** Of attempts that take 60 ms. */
const justBegunMs = 30

const pattern = /(limited|in-order) (begins|ends) (\S+) (\d+) ([\d.]+);/

/** What each attempt told of itself, and when its process was killed. */
const history = () => {
  const told: Array<Told> = []
  const kills: Array<{ readonly process: string; readonly at: number }> = []
  return {
    /** What a killed process had said may still be on its way when it is known to be dead: so its attempts are ended here. */
    told: (): ReadonlyArray<Told> => {
      const ends = kills.flatMap(({ at, process }) => {
        const running = new Map<string, Told>()
        for (const each of told) {
          if (each.process !== process || each.at > at) continue
          const id = `${each.task} ${each.n}`
          if (each.what === "begins") running.set(id, each)
          else running.delete(id)
        }
        return [...running.values()].map((each) => ({ ...each, what: "ends", at }))
      })
      return [...told, ...ends]
    },
    onLine: (process: string, line: string) => {
      const [, task, what, key, n, at] = pattern.exec(line) ?? []
      if (task === undefined) return
      told.push({ process, task, what: what!, key: key!, n: Number(n), at: Number(at) })
    },
    /** Until an attempt of the process has just begun: killed now, it is killed in the middle of it. */
    isBusy: (process: string): boolean => {
      const now = performance.timeOrigin + performance.now()
      const last = told.findLast((each) => each.process === process)
      return last !== undefined && last.what === "begins" && now - last.at < justBegunMs
    },
    killed: (process: string) => void kills.push({ process, at: performance.timeOrigin + performance.now() })
  }
}

/** The most that ran at once, by key. */
const together = (told: ReadonlyArray<Told>): ReadonlyMap<string, number> => {
  const now = new Map<string, number>()
  const most = new Map<string, number>()
  // At one instant an end comes before a beginning.
  const inTime = [...told].sort((a, b) => a.at - b.at || (a.what === "ends" ? -1 : 1))
  for (const { key, what } of inTime) {
    const count = (now.get(key) ?? 0) + (what === "begins" ? 1 : -1)
    now.set(key, count)
    most.set(key, Math.max(most.get(key) ?? 0, count))
  }
  return most
}

describe("limits", () => {
  it.scopedLive(
    "hold while the owner of the queue, and a worker, are killed",
    () =>
      Effect.gen(function*() {
        const { isBusy, killed, onLine, told: toldBy } = history()

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
          Effect.repeat({ until: () => isBusy(worker!.name) }),
          Effect.timeoutOption("10 seconds")
        )
        yield* worker!.kill("SIGKILL")
        killed(worker!.name)
        const runs = Context.get(client, Runs)
        const ends = yield* Effect.forEach(ids.flat(), (id) => runs.awaitFinal(id), { concurrency: "unbounded" })

        assert.deepStrictEqual([...new Set(ends.map((run) => run.state))], ["succeeded"])
        const told = toldBy()
        const most = together(told)
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
