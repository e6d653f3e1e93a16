import * as Supervisor from "@orrery/cli/Supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { compiled } from "../../testing/src/compiled.js"

const fixture = (name: string) => compiled(fileURLToPath(new URL(`./fixtures/${name}.ts`, import.meta.url)))
const [script, parent] = [await fixture("child"), await fixture("parent")]

/** Processes take their time to start on a busy machine. */
const testTimeoutMs = 60_000

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const dies = (pid: number) =>
  Effect.sync(() => isAlive(pid)).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("10 seconds")
  )

describe("Supervisor", () => {
  it.scopedLive(
    "tells the ready line, passes the environment, and ends the child with the scope",
    () =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const pid = yield* Effect.scoped(Effect.gen(function*() {
          const child = yield* Supervisor.start({
            script,
            env: { ORRERY_TEST: "here" },
            onLine: (line) => lines.push(line)
          })
          const ready = yield* child.ready

          assert.strictEqual(ready.pid, yield* child.pid)
          assert.strictEqual(ready.dataAddress, "127.0.0.1:1")
          return ready.pid
        }))

        assert.isFalse(isAlive(pid))
        assert.deepStrictEqual(lines, ["secret in environment: here"])
      }),
    testTimeoutMs
  )

  it.scopedLive("starts a killed child again and tells of the new one", () =>
    Effect.gen(function*() {
      const child = yield* Supervisor.start({ script })
      const first = yield* child.ready

      assert.isTrue(yield* child.kill("SIGKILL"))
      const second = yield* child.ready

      assert.notStrictEqual(second.pid, first.pid)
      assert.isTrue(isAlive(second.pid))
      yield* child.stop
      const ended = yield* child.ended
      const events = yield* child.events.pipe(Stream.takeUntil((event) => event._tag === "ended"), Stream.runCollect)
      assert.strictEqual(ended.reason, "stopped")
      assert.deepStrictEqual(
        [...events].map((event) => event._tag),
        ["started", "ready", "exited", "started", "ready", "exited", "ended"]
      )
    }), testTimeoutMs)

  it.scopedLive(
    "does not start a child again that refused its configuration, and tells what it said",
    () =>
      Effect.gen(function*() {
        const child = yield* Supervisor.start({ script, args: ["refuses"], name: "node-1" })

        const failure = yield* Effect.flip(child.ready)

        assert.strictEqual(failure.exitCode, 1)
        assert.match(failure.message, /node-1 ended: refused to start \(code 1\)\nwrong configuration: ORRERY_X/)
      }),
    testTimeoutMs
  )

  it.scopedLive("does not start a child again when asked not to", () =>
    Effect.gen(function*() {
      const child = yield* Supervisor.start({ script, restart: false })
      yield* child.ready

      yield* child.kill("SIGKILL")

      assert.strictEqual((yield* child.ended).reason, "exited by SIGKILL")
      assert.isFalse(yield* child.kill("SIGKILL"))
    }), testTimeoutMs)

  it.scopedLive("kills a child that does not stop, also a frozen one", () =>
    Effect.gen(function*() {
      const stubborn = yield* Supervisor.start({ script, args: ["stubborn"], stopWithin: "300 millis" })
      const frozen = yield* Supervisor.start({ script, stopWithin: "300 millis" })
      const pids = [(yield* stubborn.ready).pid, (yield* frozen.ready).pid]
      yield* frozen.kill("SIGSTOP")

      yield* Effect.all([stubborn.stop, frozen.stop], { concurrency: 2 })

      assert.deepStrictEqual(pids.map(isAlive), [false, false])
    }), testTimeoutMs)

  it.scopedLive("leaves no child behind when it is killed itself", () =>
    Effect.gen(function*() {
      const supervisor = spawn(process.execPath, [parent, script], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      const [chunk] = yield* Effect.promise(() => once(supervisor.stdout, "data"))
      const pid = Number(String(chunk).trim())
      assert.isTrue(isAlive(pid))

      supervisor.kill("SIGKILL")

      yield* dies(pid)
    }), testTimeoutMs)
})
