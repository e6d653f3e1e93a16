import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Effect, Exit, Option, Redacted, Schedule, Scope } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import pg from "pg"
import { compiled } from "@orrery/testing/compiled"
import { fileURLToPath } from "node:url"
import * as OsProcess from "../src/internal/osProcess.js"

const fixture = fileURLToPath(new URL("./fixtures/server.ts", import.meta.url))

// In the system's folder, and not in the checkout: the server's own user can enter it wherever the checkout lies.
const makeFolder = () => {
  const folder = mkdtempSync(path.join(tmpdir(), "orrery-test-"))
  chmodSync(folder, 0o755)
  return path.join(folder, "pg")
}
const removeFolder = (dataDir: string) => rmSync(path.dirname(dataDir), { recursive: true, force: true })

/** No data yet. */
const empty = Effect.acquireRelease(Effect.sync(makeFolder), (dataDir) => Effect.sync(() => removeFolder(dataDir)))

/** Data of a server that was stopped: made once, as that takes seconds, and copied with its owner. */
const template = makeFolder()
beforeAll(() => Effect.runPromise(Effect.scoped(EmbeddedPostgres.start({ dataDir: template, durable: false }))), 60_000)
afterAll(() => removeFolder(template))
const scratch = Effect.tap(empty, (dataDir) =>
  Effect.sync(() => {
    execFileSync("cp", ["-a", template, dataDir])
    execFileSync("cp", ["-a", `${template}.password`, `${dataDir}.password`])
  }))

const query = (url: Redacted.Redacted<string>, sql: string) =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: Redacted.value(url) })
      client.on("error", () => undefined)
      await client.connect()
      return client
    }),
    (client) => Effect.promise(async () => (await client.query<Record<string, unknown>>(sql)).rows),
    (client) => Effect.promise(() => client.end())
  )

const isAlive = (pid: number) => Option.isSome(OsProcess.find(pid))

const awaitGone = (pid: number) =>
  Effect.sync(() => isAlive(pid)).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("15 seconds")
  )

describe.concurrent("EmbeddedPostgres", () => {
  it.effect("refuses to signal a process group", () =>
    Effect.gen(function*() {
      for (const pid of [0, -1, 1, Number.NaN]) {
        assert.isTrue(Exit.isFailure(yield* Effect.exit(OsProcess.signal(pid, "SIGTERM"))))
      }
    }))

  it.scopedLive(
    "answers on loopback with production settings and a private password file",
    () =>
      Effect.gen(function*() {
        const dataDir = yield* empty
        const server = yield* EmbeddedPostgres.start({ dataDir, settings: { work_mem: "8MB" } })

        const rows = yield* query(
          server.url,
          `select current_database() as db, current_setting('fsync') as fsync, current_setting('work_mem') as work_mem,
                current_setting('synchronous_commit') as commit, current_setting('TimeZone') as zone,
                current_setting('listen_addresses') as listens, current_setting('data_checksums') as checksums`
        )

        assert.deepStrictEqual(rows, [{
          ...{ db: "orrery", fsync: "on", work_mem: "8MB", commit: "on", zone: "UTC", listens: "127.0.0.1" },
          checksums: "on"
        }])
        assert.strictEqual(statSync(`${server.dataDir}.password`).mode & 0o777, 0o600)
        assert.notInclude(String(server.url), readFileSync(`${server.dataDir}.password`, "utf8"))
      }),
    60_000
  )

  it.scopedLive(
    "runs two servers side by side, and refuses a second one on the same folder",
    () =>
      Effect.gen(function*() {
        const [here, there] = yield* Effect.all([scratch, scratch])
        const first = yield* EmbeddedPostgres.start({ dataDir: here, durable: false })
        const second = yield* EmbeddedPostgres.start({ dataDir: there, durable: false })

        const again = yield* Effect.flip(EmbeddedPostgres.start({ dataDir: here, durable: false }))
        const onTakenPort = yield* scratch.pipe(
          Effect.flatMap((dataDir) => Effect.flip(EmbeddedPostgres.start({ dataDir, port: first.port })))
        )

        assert.notStrictEqual(first.port, second.port)
        assert.deepStrictEqual(yield* query(first.url, "select 1 as one"), [{ one: 1 }])
        assert.deepStrictEqual(yield* query(second.url, "select 1 as one"), [{ one: 1 }])
        assert.strictEqual(again.reason, "InUse")
        assert.strictEqual(onTakenPort.reason, "PortTaken")
      }),
    60_000
  )

  it.scopedLive("keeps data and port over restarts, a crash and a killed server", () =>
    Effect.gen(function*() {
      const dataDir = yield* scratch
      const server = yield* EmbeddedPostgres.start({ dataDir })
      yield* query(server.url, "create table kept (n int)")
      const before = server.port

      for (const mode of ["fast", "immediate"] as const) {
        yield* query(server.url, "insert into kept values (1)")
        yield* server.restart(mode)
      }
      const killed = server.pid
      yield* query(server.url, "insert into kept values (1)")
      yield* OsProcess.signal(killed, "SIGKILL")
      yield* awaitGone(killed)
      assert.isTrue(existsSync(path.join(dataDir, "postmaster.pid")))
      yield* server.restart("fast")

      assert.strictEqual(server.port, before)
      assert.notStrictEqual(server.pid, killed)
      assert.deepStrictEqual(yield* query(server.url, "select count(*)::int as n from kept"), [{ n: 3 }])
    }), 60_000)

  it.scopedLive("starts over a pid file whose pid now belongs to another process", () =>
    Effect.gen(function*() {
      const dataDir = yield* scratch
      const scope = yield* Scope.make()
      const server = yield* EmbeddedPostgres.start({ dataDir }).pipe(Scope.extend(scope))
      yield* Scope.close(scope, Exit.void)
      writeFileSync(path.join(dataDir, "postmaster.pid"), `${process.pid}\n${dataDir}\n`)

      const next = yield* EmbeddedPostgres.start({ dataDir })

      assert.strictEqual(next.port, server.port)
      assert.deepStrictEqual(yield* query(next.url, "select 1 as one"), [{ one: 1 }])
    }), 60_000)

  it.scopedLive("leaves no process behind when its scope closes", () =>
    Effect.gen(function*() {
      const dataDir = yield* scratch
      const scope = yield* Scope.make()
      const server = yield* EmbeddedPostgres.start({ dataDir }).pipe(Scope.extend(scope))
      const busy = yield* Effect.fork(Effect.exit(query(server.url, "select pg_sleep(60)")))

      yield* Scope.close(scope, Exit.void)
      yield* busy.await

      assert.isFalse(isAlive(server.pid))
      assert.notInclude(execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }), dataDir)
      assert.isFalse(existsSync(path.join(dataDir, "postmaster.pid")))
    }), 60_000)

  it.scopedLive("ends the server of a process that was killed, and takes over its data", () =>
    Effect.gen(function*() {
      const dataDir = yield* scratch
      const doomed = yield* startElsewhere(dataDir, "none")

      yield* OsProcess.signal(doomed.parent, "SIGKILL")
      yield* awaitGone(doomed.server)
      const next = yield* EmbeddedPostgres.start({ dataDir })

      assert.deepStrictEqual(yield* query(next.url, "select 1 as one"), [{ one: 1 }])
    }), 60_000)

  it.scopedLive(
    "ends an orphaned server at the next start when its guard was killed too",
    () =>
      Effect.gen(function*() {
        const dataDir = yield* scratch
        const doomed = yield* startElsewhere(dataDir, "guard")
        yield* OsProcess.signal(doomed.guard, "SIGKILL")
        yield* OsProcess.signal(doomed.parent, "SIGKILL")
        yield* awaitGone(doomed.parent)
        assert.isTrue(isAlive(doomed.server))

        const next = yield* EmbeddedPostgres.start({ dataDir })

        assert.isFalse(isAlive(doomed.server))
        assert.deepStrictEqual(yield* query(next.url, "select 1 as one"), [{ one: 1 }])
      }),
    60_000
  )

  it.scopedLive("gives tests fresh databases on one server", () =>
    Effect.gen(function*() {
      const dataDir = yield* scratch
      const server = yield* EmbeddedPostgres.start({ dataDir, durable: false })

      const url = yield* EmbeddedPostgres.createDatabase(server, "odd \"name\"")
      const again = yield* Effect.flip(EmbeddedPostgres.createDatabase(server, "odd \"name\""))

      assert.deepStrictEqual(yield* query(url, "select current_database() as db"), [{ db: "odd \"name\"" }])
      assert.include(again.message, "already exists")
    }), 60_000)
})

/** Another Node process that runs a server on `dataDir`. */
const startElsewhere = (dataDir: string, lookFor: "none" | "guard") =>
  Effect.acquireRelease(
    Effect.flatMap(Effect.promise(() => compiled(fixture)), (program) =>
      Effect.async<{ readonly parent: number; readonly server: number; readonly guard: number }, Error>((resume) => {
        const child = spawn(process.execPath, [program, dataDir], { stdio: ["ignore", "pipe", "inherit"] })
        let output = ""
        child.stdout.on("data", (chunk: Buffer) => {
          output += chunk.toString()
          const server = /pid=(\d+)/.exec(output)?.[1]
          if (server === undefined) {
            return
          }
          const listed = lookFor === "guard" ? execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" }) : ""
          const line = listed.split("\n").find((one) =>
            one.includes("orrery-postgres-guard") && one.includes(dataDir)
          )
          const guard = Number.parseInt(line ?? "", 10)
          if (lookFor === "guard" && !(guard > 1)) return resume(Effect.dieMessage("the guard is not running"))
          resume(Effect.succeed({ parent: child.pid ?? 0, server: Number(server), guard }))
        })
        child.once("exit", (code) => resume(Effect.dieMessage(`exited with ${code}: ${output}`)))
      })),
    ({ parent }) => OsProcess.signal(parent, "SIGKILL")
  )
