/**
 * What a run may cost, held without a clock: statements, rows and WAL per run, and what an idle node does. On a server of
 * its own, for the server counts what others do too.
 */
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { assert, layer } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Option } from "effect"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as BenchPostgres from "../src/BenchPostgres.js"
import { measureAll } from "../src/rounds.js"
import { type Bench, open } from "../src/Stage.js"
import { oursId, registered } from "../src/systems/index.js"
import * as Systems from "../src/systemsHere.js"
import { w1 } from "../src/workloads/w1.js"
import { w13 } from "../src/workloads/w13.js"
import { w2 } from "../src/workloads/w2.js"

/** Of the 50,000 of a quick run. */
const scale = 0.2
const testTimeoutMs = 180_000

const idleFor = Duration.seconds(6)
/** Who is there, the locks, and a sign of life, each every two seconds; and one over. */
const idleStatementsPerSecond = 2.5
/** Of one core. 0.9 measured on a quiet machine, half of it the waking of the process. */
const idleCpuPercent = 5

const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const made = mkdtempSync(path.join(tmpdir(), "orrery-ceilings-"))
    // The server may run as another user.
    chmodSync(made, 0o755)
    return made
  }),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

class BenchHere extends Context.Tag("@orrery/bench/test/BenchHere")<BenchHere, {
  readonly bench: Bench
  readonly systems: Effect.Effect.Success<ReturnType<typeof Systems.find>>["systems"]
}>() {}

const here = Effect.gen(function*() {
  const server = yield* EmbeddedPostgres.start({
    dataDir: path.join(yield* folder, "pg"),
    durable: false,
    // Whole pages after a checkpoint depend on when it came.
    settings: { full_page_writes: "off", autovacuum: "off", shared_preload_libraries: "pg_stat_statements" }
  })
  yield* BenchPostgres.query(server.url, "create extension if not exists pg_stat_statements")
  const output: Array<string> = []
  const found = yield* Systems.find(registered.filter(({ id }) => id === oursId), (text) => output.push(text))
  const bench: Bench = {
    postgres: { url: server.url, pid: Option.some(server.pid) },
    sizes: { quick: true, scale, seed: 1 },
    programs: found.programs,
    requireDurable: false,
    onOutput: (text) => output.push(text)
  }
  return { bench, systems: found.systems }
})

/**
 * Measured on a quiet machine: enqueue 9 statements, 10,000 rows and 440 bytes a run; drain 27 statements, 10,100 rows and
 * 430 bytes without history, 20,100 rows and 690 bytes with it. A slow machine makes smaller batches, and writes down
 * more of the starts; one statement a run, or a second index, is far beyond.
 */
const ceilings: Readonly<Record<string, { statementsPer10k: number; rowsPer10k: number; walBytes: number }>> = {
  W1: { statementsPer10k: 100, rowsPer10k: 10_500, walBytes: 520 },
  W2: { statementsPer10k: 400, rowsPer10k: 14_000, walBytes: 700 },
  "W2-history": { statementsPer10k: 400, rowsPer10k: 24_000, walBytes: 1_000 },
  // 500 of them are the take-over and the page of each of the hundred queues.
  W13: { statementsPer10k: 1_200, rowsPer10k: 14_000, walBytes: 900 }
}

layer(Layer.scoped(BenchHere, here), { excludeTestServices: true, timeout: testTimeoutMs })("ceilings", (it) => {
  it.scoped("of statements, rows and WAL per run", () =>
    Effect.gen(function*() {
      const { bench, systems } = yield* BenchHere
      const cases = [w1.cases[0]!, ...w2.cases.slice(0, 2), ...w13.cases]

      const figures = yield* measureAll(bench, {
        cases,
        systems,
        rounds: 1,
        quietly: false,
        onProgress: () => undefined
      })

      assert.deepStrictEqual(figures.map(({ workload }) => workload), Object.keys(ceilings))
      for (const { all, missing, workload } of figures) {
        assert.deepStrictEqual(missing, {})
        const { details } = all[oursId]!
        for (const [what, ceiling] of Object.entries(ceilings[workload]!)) {
          assert.isAtMost(Number(details[what]), ceiling, `${workload} ${what}`)
        }
      }
    }), testTimeoutMs)

  it.scoped(
    "of an idle node: no query but for its locks and its place among the nodes, next to no CPU",
    () =>
      Effect.gen(function*() {
        const { bench, systems } = yield* BenchHere
        const stage = yield* open(bench, systems[0]!, { queues: 1, keepHistory: true })
        const serve = Option.getOrThrow(yield* stage.serve)
        const { name } = Option.getOrThrow(stage.database)
        const calls = Effect.map(
          BenchPostgres.query(
            bench.postgres.url,
            `select query, calls::integer as calls from pg_stat_statements s join pg_database d on d.oid = s.dbid
           where d.datname = '${name}'`
          ),
          (rows) => new Map(rows.map((row) => [String(row["query"]), Number(row["calls"])]))
        )
        // What a start leaves behind comes to an end.
        yield* Effect.sleep("4 seconds")
        const before = yield* calls
        const cpuBefore = (yield* serve.ask("usage", null)).cpuUs
        yield* Effect.sleep(idleFor)
        const cpuUs = (yield* serve.ask("usage", null)).cpuUs - cpuBefore
        const made = [...yield* calls].flatMap(([query, n]) => {
          const count = n - (before.get(query) ?? 0)
          return count > 0 ? [{ query, count }] : []
        })

        const foreign = made.filter(({ query }) => !/cluster_runners|pg_locks/.test(query))
        assert.deepStrictEqual(foreign, [])
        const perSecond = made.reduce((sum, { count }) => sum + count, 0) / Duration.toSeconds(idleFor)
        assert.isAtMost(perSecond, idleStatementsPerSecond)
        assert.isAtMost(cpuUs / Duration.toMillis(idleFor) / 10, idleCpuPercent)
      }),
    testTimeoutMs
  )
})
