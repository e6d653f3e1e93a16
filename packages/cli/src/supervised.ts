/** What a long-running process does: tell that it is ready, end by signals, end with its supervisor, end for certain. */
import * as Failpoint from "@orrery/core/Failpoint"
import type { ConfigInvalid } from "@orrery/core/Setting"
import { Effect } from "effect"
import { writeSync } from "node:fs"
import { exitCode } from "./ExitCode.js"
import type { Ready } from "./Supervisor.js"

/** The supervisor is gone, and what it ran for us (the database, say) may be too: no long farewells. */
const orphanEndsWithinMs = 2_000
/** Beyond the time the process gave itself to drain. */
const hardEndMarginMs = 2_000
/** For finalizers of a node that must not go on. */
const fatalEndsWithinMs = 2_000

/** Ends this process when its supervisor has gone away, however that ended. Does nothing without a supervisor. */
export const endWithSupervisor: Effect.Effect<void> = Effect.sync(() => {
  const channel = process.channel
  if (channel === undefined || channel === null) return
  // Nobody reads any more: writing must not be what ends us, before the drain.
  process.stdout.on("error", () => undefined)
  process.stderr.on("error", () => undefined)
  process.once("disconnect", () => {
    setTimeout(() => process.exit(exitCode.unavailable), orphanEndsWithinMs).unref()
    process.kill(process.pid, "SIGTERM")
  })
  channel.unref()
})

const stderrFd = 2

/** Dies on the spot where `ORRERY_FAILPOINT` says: nothing is flushed, closed or told. */
export const armFailpoint: Effect.Effect<void, ConfigInvalid> = Failpoint.armFromConfig((name) => {
  writeSync(stderrFd, `orrery: failpoint ${name} reached\n`)
  process.kill(process.pid, "SIGKILL")
})

/** First step of every long-running command. A signal is how it is meant to end: that is exit code 0. */
export const begin: Effect.Effect<void> = Effect.zipRight(
  Effect.sync(() => {
    process.exitCode = exitCode.ok
  }),
  endWithSupervisor
)

/** After SIGTERM or SIGINT the process is gone at most `drainMs` + 2 s later, whatever hangs. */
export const hardEndAfter = (drainMs: number): Effect.Effect<void> =>
  Effect.sync(() => {
    const arm = () => {
      setTimeout(() => {
        process.stderr.write(`orrery: still not ended ${drainMs + hardEndMarginMs} ms after the signal, giving up\n`)
        process.exit(exitCode.unavailable)
      }, drainMs + hardEndMarginMs).unref()
    }
    process.once("SIGTERM", arm)
    process.once("SIGINT", arm)
  })

/** The process is gone in 2 s, with the code that asks for a restart. */
export const endSoon: Effect.Effect<void> = Effect.sync(() => {
  setTimeout(() => process.exit(exitCode.restart), fatalEndsWithinMs).unref()
})

/** A worker has no addresses: they are empty. */
export const printReady = (ready: Omit<Ready, "event" | "pid">): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(`${JSON.stringify({ event: "ready", ...ready, pid: process.pid } satisfies Ready)}\n`)
  })
