/** What happens to PostgreSQL itself: stops, outages, lost sessions, refusals. */
import { execute } from "@orrery/store-pg/EmbeddedPostgres"
import { Effect } from "effect"
import type { Scenario, Scene } from "../Scenario.js"
import { heldBytes } from "../ResourceWatch.js"
import { allSurvive, inTurn } from "./processes.js"

const downMsMax = 2_000

/** Stopped as by a crash, and there again after a time. */
const outage = (scene: Scene, ms: number, whileDown: Effect.Effect<unknown> = Effect.void) =>
  scene.event(`PostgreSQL is away for ${ms} ms`, {
    inject: Effect.zipRight(scene.postgres.server.stop("immediate"), Effect.zipRight(Effect.sleep(ms), whileDown)),
    repair: Effect.orDie(scene.postgres.server.restart("immediate"))
  })

export const restartPostgres: Scenario = {
  name: "restart-postgres",
  catalogue: "T06",
  what: "PostgreSQL stopped as by a crash and started 0 to 2 s later, again and again",
  times: 6,
  quickTimes: 2,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        for (let n = 0; n < scene.times; n++) yield* outage(scene, scene.random.integer(0, downMsMax))
      })
    )
}

const longMs = 60_000
const longQuickMs = 15_000
/** Calls that wait for the database, and what they carry. */
const growthBytesMax = 32 * 1024 * 1024

/** Asked at the same time. */
const processesMax = 16

const memoryOf = (scene: Scene) =>
  Effect.forEach([...scene.cluster.nodes, ...scene.cluster.workers], (each) => heldBytes(each, scene.folder), {
    concurrency: processesMax
  })

export const postgresDown: Scenario = {
  name: "postgres-down",
  catalogue: "T07",
  what: "PostgreSQL away for 60 s (15 s with --quick): nobody crashes, memory stays flat",
  times: 1,
  quickTimes: 1,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        for (let n = 0; n < scene.times; n++) {
          const before = yield* memoryOf(scene)
          let grown = Number.NaN
          const look = Effect.map(memoryOf(scene), (after) => {
            grown = Math.max(...after.map((bytes, at) => (bytes ?? Number.NaN) - (before[at] ?? Number.NaN)))
          })
          yield* outage(scene, scene.isQuick ? longQuickMs : longMs, look)
          scene.note("memoryGrownMB", Math.round(grown / 1024 / 1024))
          // NaN: one did not answer.
          if (!(grown <= growthBytesMax)) {
            scene.violate({ checker: "resources", what: `a process holds ${grown} bytes more during the outage` })
          }
        }
      })
    )
}

const endLocks =
  "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'orrery-lock-%'"

export const endLockSessions: Scenario = {
  name: "end-lock-sessions",
  catalogue: "T08",
  what: "all sessions that hold shard locks are ended, again and again",
  times: 6,
  quickTimes: 2,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        yield* scene.event("the lock sessions are ended", { inject: scene.query(endLocks) })
      }
    })
}

const role = "chaos_nodes"
const refusalMs = 5_000
const connectionsLeft = 6

const endSessions = (scene: Scene) =>
  scene.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename = '${role}'`
  )

/** A way in which the database refuses, and its end. */
interface Refusal {
  readonly what: string
  readonly begin: (scene: Scene) => Effect.Effect<unknown>
  readonly end: (scene: Scene) => Effect.Effect<unknown>
}

const setting = (what: string, on: (database: string) => string, off: (database: string) => string): Refusal => {
  const apply = (statement: (database: string) => string) => (scene: Scene) =>
    Effect.zipRight(
      Effect.orDie(execute(scene.postgres.server.url, statement(scene.database.name))),
      // Settings of a role take effect on its next sessions.
      endSessions(scene)
    )
  return { what, begin: apply(on), end: apply(off) }
}

const refusals: ReadonlyArray<Refusal> = [
  setting(
    "the database is read-only",
    (database) => `alter role ${role} in database ${database} set default_transaction_read_only = on`,
    (database) => `alter role ${role} in database ${database} reset default_transaction_read_only`
  ),
  setting(
    `the nodes may have ${connectionsLeft} connections in all`,
    () => `alter role ${role} connection limit ${connectionsLeft}`,
    () => `alter role ${role} connection limit -1`
  ),
  {
    what: "somebody holds the rows of all partitions",
    begin: (scene) =>
      Effect.asVoid(
        Effect.orDie(execute(
          scene.database.admin,
          `begin; select 1 from orrery.partitions for update; select pg_sleep(${refusalMs / 1_000}); commit`
        ))
      ),
    end: () => Effect.void
  },
  {
    what: "every session of the nodes is ended",
    begin: endSessions,
    end: () => Effect.void
  }
]

export const postgresErrors: Scenario = {
  name: "postgres-errors",
  catalogue: "T11",
  what: "PostgreSQL read-only, out of connections, rows locked, all sessions ended",
  times: refusals.length,
  quickTimes: refusals.length,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const { begin, end, what } = inTurn(refusals, n)
        yield* scene.event(what, {
          inject: Effect.zipRight(begin(scene), Effect.sleep(refusalMs)),
          repair: end(scene)
        })
      }
    })
}
