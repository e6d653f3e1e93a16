/** One run of the server program, from spawn to exit. */
import { Deferred, Duration, Effect, Option } from "effect"
import { type ChildProcess, spawn as spawnChild } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { fileFailure } from "./EmbeddedPostgresFailed.js"
import * as OsProcess from "./osProcess.js"
import type { PostgresBinaries } from "./postgresBinaries.js"
import { type PostgresFolder, serverMark } from "./postgresFolder.js"

export interface Postmaster {
  readonly child: ChildProcess
  readonly guard: ChildProcess
  readonly exited: Deferred.Deferred<void>
  /** What this run wrote to the log. */
  readonly output: Effect.Effect<string>
}

/** The log starts anew above this size. */
const logBytesMax = 20 * 1024 * 1024

/**
 * Outlives us on purpose: waits until our end of its standard input closes, however we end, and then ends the server.
 * The pid file is asked first, as the pid may by then belong to another process.
 */
const guardScript = `read -r _
[ "$(head -n 1 "$2" 2>/dev/null)" = "$1" ] || exit 0
kill -INT "$1"
for second in 1 2 3 4 5; do sleep 1; kill -0 "$1" 2>/dev/null || exit 0; done
kill -QUIT "$1"`

/** Starts the server; does not wait until it answers. Its own session, so that Ctrl-C reaches us and not the server. */
export const spawn = Effect.fn("postmaster.spawn")(function*(
  binaries: PostgresBinaries,
  folder: PostgresFolder,
  settings: Readonly<Record<string, string>>
) {
  const logFile = `${folder.dataDir}.log`
  const exited = yield* Deferred.make<void>()
  const logged = yield* Effect.promise(() => fs.stat(logFile).then((entry) => entry.size, () => 0))
  const from = logged > logBytesMax ? 0 : logged
  const child = yield* Effect.try({
    try: () => {
      const log = openSync(logFile, from === 0 ? "w" : "a", 0o600)
      const args = Object.entries({ ...settings }).flatMap(([name, value]) => ["-c", `${name}=${value}`])
      try {
        return spawnChild(binaries.postgres, ["-D", folder.dataDir, "-c", serverMark, ...args], {
          ...OsProcess.plainSpawn,
          ...Option.getOrElse(folder.user, () => ({})),
          stdio: ["ignore", log, log],
          detached: true
        })
      } finally {
        closeSync(log)
      }
    },
    catch: fileFailure(folder.dataDir, "starting the server")
  })
  let problem = ""
  child.once("error", (error) => {
    problem = String(error)
    Deferred.unsafeDone(exited, Effect.void)
  })
  child.once("exit", () => Deferred.unsafeDone(exited, Effect.void))
  const guard = guardOf(child, folder)
  const output = Effect.promise(() =>
    fs.readFile(logFile).then((bytes) => bytes.subarray(from).toString("utf8"), () => "")
  ).pipe(Effect.map((text) => text + problem))
  return { child, guard, exited, output } satisfies Postmaster
})

const guardOf = (child: ChildProcess, folder: PostgresFolder) => {
  const pidFile = path.join(folder.dataDir, "postmaster.pid")
  const args = ["-c", guardScript, "orrery-postgres-guard", String(child.pid ?? 0), pidFile]
  const guard = spawnChild("/bin/sh", args, {
    ...OsProcess.plainSpawn,
    stdio: ["pipe", "ignore", "ignore"],
    detached: true
  })
  guard.once("error", () => undefined) // No /bin/sh: the next start ends the orphan instead.
  guard.stdin.once("error", () => undefined)
  guard.unref()
  return guard
}

/**
 * Ends the server and returns when its process is gone.
 *
 * `fast` rolls back and checkpoints; `immediate` is a crash that needs recovery at the next start. Each stronger signal
 * follows after 5 s. Committed data survives all of them.
 */
export const stop = Effect.fn("postmaster.stop")(function*(postmaster: Postmaster, mode: "fast" | "immediate") {
  const signals = mode === "fast" ? ["SIGINT", "SIGQUIT", "SIGKILL"] as const : ["SIGQUIT", "SIGKILL"] as const
  for (const signal of signals) {
    if (yield* Deferred.isDone(postmaster.exited)) break
    postmaster.child.kill(signal)
    yield* Deferred.await(postmaster.exited).pipe(Effect.timeoutOption(Duration.seconds(5)))
  }
  postmaster.guard.kill("SIGKILL")
})
