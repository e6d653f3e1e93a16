/**
 * Real processes that kill themselves at each failpoint, one after the other, while runs are enqueued and executed. One
 * node is never armed, so that there is always somebody to ask. Each place is died at once; `ROUNDS=n` does it n times,
 * `SEED=n` chooses how often a place is passed before.
 */
import * as RunsClient from "@orrery/api/RunsClient"
import * as Database from "../src/Database.js"
import * as LocalCluster from "@orrery/cli/LocalCluster"
import * as Failpoint from "@orrery/core/Failpoint"
import type { RunId } from "@orrery/core/RunId"
import { assert, it } from "@effect/vitest"
import * as ClusterRig from "../../testing/src/ClusterRig.js"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { Effect, Layer, Schedule } from "effect"
import { stumbles } from "./fixtures/crashTasks.js"
import { handlersOf } from "./handlersOf.js"

const seed = Number(process.env["SEED"] ?? 1)
const rounds = Number(process.env["ROUNDS"] ?? 1)
const timeoutMs = 240_000

/** How many of a kind a process may live through first: take-overs and runs that go back in line come seldom. */
const nthOf = (name: Failpoint.FailpointName, round: number): number =>
  /^(?:take-over|requeue)/.test(name) ? 1 : 1 + (seed * 7 + round * 5 + name.length) % 8

/** The others: `Transactions.cluster.test.ts`. */
const names = Failpoint.names.filter((name) => !Failpoint.isOfTransactions(name))
const isOfWorker = (name: string) => name.startsWith("report.")
const armings = Array.from({ length: rounds }, (_, round) => round).flatMap((round) =>
  names.map((name) => ({ name, text: `${name}@${nthOf(name, round)}` }))
)
const [ofNodes, ofWorkers] = [false, true].map((mine) => armings.filter(({ name }) => isOfWorker(name) === mine))
const every = (step: number, from: number) => ofNodes!.filter((_, at) => at % step === from).map(({ text }) => text)

/** What each process dies of, life by life. */
const plan: Readonly<Record<string, ReadonlyArray<string>>> = {
  "node-1": every(3, 0),
  "node-2": every(3, 1),
  "node-3": every(3, 2),
  "worker-1": ofWorkers!.map(({ text }) => text)
}

/** All places are passed many times a second all the same, and what starts anew has the processors. */
const producerPause = "100 millis"

/** Dies again and again, until all places were reached: what it had is put back in line, which is one of the places. */
const restless = "worker-2"
const restlessDiesAt = "report.before-send@30"

it.scopedLive(
  "loses and doubles nothing when processes die at every failpoint",
  () =>
    Effect.gen(function*() {
      const databaseUrl = yield* TestPostgres.freshDatabase
      const reached: Array<string> = []
      const forgotten: Array<string> = []
      const cluster = yield* LocalCluster.start({
        databaseUrl,
        nodes: 4,
        workers: 2,
        workerSlots: 2,
        slots: 4,
        ...handlersOf("crash", { ORRERY_MAX_CRASHES: "1000" }),
        envOf: (name, start) => {
          const failpoint = name !== restless
            ? plan[name]?.[start]
            : reached.length < armings.length
            ? restlessDiesAt
            : undefined
          return failpoint === undefined ? {} : { ORRERY_FAILPOINT: failpoint }
        },
        restartPause: Schedule.spaced("50 millis"),
        onLine: (from, line) => {
          const [, name] = /^orrery: failpoint (\S+) reached$/.exec(line) ?? []
          if (line.includes("not accounted for")) forgotten.push(line)
          if (name !== undefined && from !== restless) reached.push(name)
        }
      })
      yield* ClusterRig.endAtOnce(cluster)
      const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))
      const acknowledged = new Set<RunId>()
      yield* Effect.forEach(stumbles, (task) =>
        task.enqueue({ n: 1 }).pipe(
          Effect.tap((id) => Effect.sync(() => acknowledged.add(id))),
          Effect.catchAll(() => Effect.void),
          Effect.zipRight(Effect.sleep(producerPause)),
          Effect.forever,
          Effect.provide(client),
          Effect.forkScoped
        ))

      yield* Effect.sleep("100 millis").pipe(
        Effect.repeat({ until: () => reached.length === armings.length }),
        Effect.timeoutFail({
          duration: "150 seconds",
          onTimeout: () => new Error(`reached only ${reached.join(" ")}`)
        })
      )
      // All that is left comes to an end.
      const ids = [...acknowledged]
      /** A busy machine may not give a connection in time. */
      const patiently = Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo("60 seconds")))
      const open = Database.query<{ id: string }>(
        databaseUrl,
        "looking for open runs",
        `select id from unnest($1::uuid[]) as acked(id)
         where not exists (select 1 from orrery.run_history h where h.id = acked.id and h.state = 5)`,
        [ids]
      ).pipe(patiently)
      yield* ClusterRig.eventually(Effect.map(open, (rows) => rows.length), (count) => count === 0)

      const doubled = yield* Database.query(
        databaseUrl,
        "looking for doubled runs",
        "select id from orrery.run_history group by id having count(*) > 1"
      ).pipe(patiently)
      assert.deepStrictEqual(doubled, [])
      assert.deepStrictEqual(forgotten, [])
      assert.deepStrictEqual(reached.toSorted(), armings.map(({ name }) => name).toSorted())
      assert.isAbove(ids.length, 100)
    }),
  timeoutMs
)
