/** The whole way once, small: real role processes, Orrery only. Figures depend on the machine, counts do not. */
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Redacted } from "effect"
import * as BenchPostgres from "../src/BenchPostgres.js"
import { awaitStarted, fill, withinMs } from "../src/loads.js"
import { measureAll } from "../src/rounds.js"
import { type Bench, open, shapeOf, type Stage } from "../src/Stage.js"
import { oursId, registered } from "../src/systems/index.js"
import * as Systems from "../src/systemsHere.js"
import { w1 } from "../src/workloads/w1.js"
import { w2 } from "../src/workloads/w2.js"
import { w3 } from "../src/workloads/w3.js"

const jobs = 500
/** Compiles once, and starts some twelve processes. */
const testTimeoutMs = 180_000

const benchHere = Effect.gen(function*() {
  const output: Array<string> = []
  const here = yield* Systems.find(registered.filter(({ id }) => id === oursId), (text) => output.push(text))
  assert.deepStrictEqual(here.missing, [])
  const bench: Bench = {
    postgres: { url: yield* TestPostgres.adminUrl, pid: Option.none() },
    // 500 jobs for W1 and W2.
    sizes: { quick: true, scale: 0.01, seed: 1 },
    programs: here.programs,
    // The server of the tests does not wait for the disk.
    requireDurable: false,
    onOutput: (text) => output.push(text)
  }
  return { bench, system: here.systems[0]!, systems: here.systems }
})

const count = (stage: Stage, from: string) =>
  Option.match(stage.database, {
    onNone: () => Effect.dieMessage("it has no database"),
    onSome: ({ url }) =>
      Effect.map(BenchPostgres.query(url, `select count(*)::integer as n from ${from}`), ([row]) => row?.["n"])
  })

describe.concurrent("bench", () => {
  it.scopedLive("stores what it is told is stored, and completes each job once", () =>
    Effect.gen(function*() {
      const { bench, system } = yield* benchHere
      const stage = yield* open(bench, system, { queues: 2, keepHistory: true })
      const acknowledged = yield* Effect.scoped(Effect.gen(function*() {
        yield* stage.serve
        const producer = yield* stage.produce
        yield* fill(producer, { shape: shapeOf(stage), firstIndex: 0, count: jobs, dueMs: 0, dueSpreadMs: 0 })
        const loop = { shape: shapeOf(stage), firstIndex: jobs, callers: 32, forMs: 200 }
        return (yield* producer.ask("closedLoop", loop)).acknowledged
      }))
      const all = jobs + acknowledged

      assert.isAbove(acknowledged, 0)
      assert.strictEqual(yield* count(stage, "orrery.runs"), all)

      const worker = yield* stage.work()
      yield* awaitStarted([worker], all)
      yield* stage.awaitEmpty(withinMs(all))
      const { handled, repeated } = yield* worker.ask("report", { overMs: 0 })

      assert.deepStrictEqual({ handled, repeated }, { handled: all, repeated: 0 })
      assert.strictEqual(yield* count(stage, "orrery.run_history where state = 5"), all)
    }), testTimeoutMs)

  it.scopedLive("measures W1, W2 and W3", () =>
    Effect.gen(function*() {
      const { bench, systems } = yield* benchHere
      const cases = [w1, w2, w3].map((workload) => workload.cases[0]!)

      const figures = yield* measureAll(bench, {
        cases,
        systems,
        rounds: 1,
        quietly: false,
        onProgress: () => undefined
      })

      assert.deepStrictEqual(figures.map(({ missing, workload }) => [workload, missing]), [
        ["W1", {}],
        ["W2", {}],
        ["W3", {}]
      ])
      for (const { all } of figures) assert.isAbove(all[oursId]!.values[0]!, 0)
      assert.deepInclude(figures[1]!.all[oursId]!.details, { jobs, repeated: 0 })
    }), testTimeoutMs)

  it.scopedLive("refuses a database on which a commit may be lost", () =>
    Effect.gen(function*() {
      const url = yield* TestPostgres.freshDatabase
      const name = new URL(Redacted.value(url)).pathname.slice(1)
      yield* BenchPostgres.query(url, `alter database ${name} set synchronous_commit = off`)

      const refusal = yield* Effect.flip(BenchPostgres.requireDurable(url))

      assert.strictEqual(refusal._tag, "UnequalDurability")
      assert.include(refusal.message, "synchronous_commit = off (must be on)")
    }))
})
