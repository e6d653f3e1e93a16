/**
 * What schedules cost and how late they are, in one node on this machine:
 *
 *   lone    one schedule of every second: from its nominal time to the start of its run
 *   crowd   100,000 schedules that are not due: how fast they are made, and the memory they take
 *   burst   10,000 more, all due at one instant beside the others: how late their runs are stored; and how long a run of
 *           another queue waits for its start meanwhile, beside the seconds before
 *
 * `--seconds N` of `lone`, `--crowd N`, `--burst N`. Prints one JSON object.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, RecurringSchedule, Schedules, Task } from "@orrery/orrery"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Console, Effect, Layer, Redacted, Schema } from "effect"
import { Client } from "pg"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { quantiles } from "./statistics.js"

const number = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? fallback : Number(process.argv[at + 1])
}
const seconds = number("seconds", 60)
const crowd = number("crowd", 100_000)
const burst = number("burst", 10_000)

/** Created at the same time. */
const creating = 256
const probesPerSecond = 50
/** Before the burst, and after it. */
const probeForMs = 5_000
/** The burst is made by then. */
const leadMs = 5_000
const slots = 100

const Stamp = Schema.Struct({ at: Schema.Number })
const tick = Task.make("tick", { payload: Schema.Struct({}), queue: "ticks" })
const probe = Task.make("probe", { payload: Stamp, queue: "probes" })

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
const memory = () => {
  collect()
  const { heapUsed, rss } = process.memoryUsage()
  return { heapMB: Math.round(heapUsed / 1e6), rssMB: Math.round(rss / 1e6) }
}

const wallMs = () => performance.timeOrigin + performance.now()
const waits: Array<readonly [at: number, ms: number]> = []
const handlers = Layer.merge(
  tick.toLayer(() => Effect.void),
  probe.toLayer(({ at }) => Effect.sync(() => void waits.push([at, wallMs() - at])))
)

const allowAll = { overlap: "allowAll" } as const

const makeAll = (count: number, define: (n: number) => RecurringSchedule.RecurringSchedule) =>
  Effect.gen(function*() {
    const { call } = yield* Schedules
    const from = performance.now()
    yield* Effect.forEach(
      Array.from({ length: count }, (_, n) => n),
      (n) => Effect.flatMap(define(n).definition, (definition) => call({ _tag: "create", definition })),
      { concurrency: creating, discard: true }
    )
    return Math.round(count / (performance.now() - from) * 1_000)
  })

const lateness = (db: Client, names: string, column: "started_at" | "created_at") =>
  Effect.promise(async () => {
    const { rows } = await db.query<{ ms: number }>(
      `select h.${column} - t.first as ms from orrery.schedule_ticks t
         join (select id, started_at, created_at from orrery.run_history
               union all select id, started_at, created_at from orrery.runs) h on h.id = t.run_id
       where t.schedule_id like $1`,
      [`default|${names}`]
    )
    return rows.map(({ ms }) => ms)
  })

const lone = (db: Client) =>
  Effect.gen(function*() {
    const { call } = yield* Schedules
    const only = RecurringSchedule.make("lone", {
      version: 1,
      task: tick,
      payload: {},
      every: "1 second",
      policy: allowAll
    })
    yield* RecurringSchedule.reconcile([only])
    yield* Effect.sleep(`${seconds} seconds`)
    const all = yield* lateness(db, "lone", "started_at")
    yield* call({ _tag: "delete", id: only.id })
    return { runs: all.length, latenessMs: quantiles(all) }
  })

const dayMinutes = 24 * 60

const crowded = Effect.gen(function*() {
  const before = memory()
  // Of tomorrow, so that none is due today.
  const start = new Date(Date.now() + 24 * 3_600_000)
  const perSecond = yield* makeAll(crowd, (n) =>
    RecurringSchedule.make(`crowd-${n}`, {
      version: 1,
      task: tick,
      payload: {},
      cron: `${n % 60} ${Math.floor(n % dayMinutes / 60)} * * *`,
      zone: "Europe/Berlin",
      start
    }))
  const after = memory()
  return {
    schedules: crowd,
    createdPerSecond: perSecond,
    bytesPerSchedule: Math.round((after.heapMB - before.heapMB) * 1e6 / crowd),
    before,
    after
  }
})

/** Probes, one after the other at their rate, until the instant. */
const probing = (until: number) =>
  Effect.suspend(() => probe.enqueue({ at: wallMs() })).pipe(
    Effect.zipRight(Effect.sleep(1_000 / probesPerSecond)),
    Effect.repeat({ while: () => wallMs() < until })
  )

const bursting = (db: Client) =>
  Effect.gen(function*() {
    // Made well before: 10,000 at some thousand a second.
    const at = Math.ceil((wallMs() + burst * 2) / 1_000) * 1_000 + leadMs
    const perSecond = yield* makeAll(burst, (n) =>
      RecurringSchedule.make(`burst-${n}`, {
        version: 1,
        task: tick,
        payload: {},
        at: [new Date(at)],
        policy: allowAll
      }))
    yield* Effect.sleep(Math.max(0, at - probeForMs - wallMs()))
    waits.length = 0
    yield* probing(at + probeForMs)
    const stored = yield* Effect.repeat(Effect.delay(lateness(db, "burst-%", "created_at"), "500 millis"), {
      until: (all) => all.length >= burst
    })
    const waitsOf = (isBefore: boolean) =>
      quantiles(waits.filter(([sent]) => sent < at === isBefore).map(([, ms]) => ms))
    return {
      schedules: burst,
      createdPerSecond: perSecond,
      storedLateMs: quantiles(stored),
      otherQueueMs: { before: waitsOf(true), during: waitsOf(false) }
    }
  })

const main = Effect.gen(function*() {
  const server = yield* EmbeddedPostgres.start({ dataDir: ".orrery/bench/schedules" })
  const databaseUrl = yield* EmbeddedPostgres.createDatabase(server, `schedules_${process.pid}`)
  const db = new Client({ connectionString: Redacted.value(databaseUrl) })
  yield* Effect.acquireRelease(Effect.promise(() => db.connect()), () => Effect.promise(() => db.end()))
  yield* Effect.gen(function*() {
    yield* probe.execute({ at: wallMs() })
    const figures = { lone: yield* lone(db), crowd: yield* crowded, burst: yield* bursting(db) }
    yield* Console.log(JSON.stringify(figures, undefined, 2))
  }).pipe(Effect.provide(Orrery.layerNode({
    databaseUrl,
    workerSlots: slots,
    handlers
  })))
}).pipe(Effect.scoped)

NodeRuntime.runMain(main)
