import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Schedule, Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { compiled } from "../src/compiled.js"
import * as RedisServer from "../src/RedisServer.js"

const redisOwner = fileURLToPath(new URL("./fixtures/redisOwner.ts", import.meta.url))

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const without = (url: Redacted.Redacted<string>, change: (url: URL) => void) => {
  const other = new URL(Redacted.value(url))
  change(other)
  return Redacted.make(other.href)
}

const settingOf = (server: RedisServer.RedisServer, name: string) =>
  RedisServer.execute(server.url, "CONFIG", "GET", name).pipe(
    Effect.map((reply) => reply.split("\r\n").at(-1))
  )

describe.concurrent("RedisServer", () => {
  it.scopedLive("answers who knows the password, and nobody else", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.start({})
      const anonymous = without(server.url, (url) => {
        url.password = ""
      })
      const guessing = without(server.url, (url) => {
        url.password = "guess"
      })

      const answer = yield* RedisServer.execute(server.url, "PING")
      const refused = yield* Effect.flip(RedisServer.execute(anonymous, "PING"))
      const wrong = yield* Effect.flip(RedisServer.execute(guessing, "PING"))

      assert.strictEqual(answer, "+PONG")
      assert.include(String(refused), "NOAUTH")
      assert.include(String(wrong), "WRONGPASS")
      assert.match(server.version, /^\d+\.\d+/)
    }))

  it.scopedLive("keeps nothing, writes each second or at once, as asked", () =>
    Effect.gen(function*() {
      const memory = yield* RedisServer.start({})
      const second = yield* RedisServer.start({ appendfsync: "everysec" })
      const always = yield* RedisServer.start({ appendfsync: "always" })

      assert.strictEqual(yield* settingOf(memory, "appendonly"), "no")
      assert.strictEqual(yield* settingOf(memory, "save"), "")
      assert.strictEqual(yield* settingOf(second, "appendonly"), "yes")
      assert.strictEqual(yield* settingOf(second, "appendfsync"), "everysec")
      assert.strictEqual(yield* settingOf(always, "appendonly"), "yes")
      assert.strictEqual(yield* settingOf(always, "appendfsync"), "always")
      assert.strictEqual(yield* settingOf(always, "bind"), "127.0.0.1")
    }))

  it.live("is gone with its scope, files and all", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const server = yield* RedisServer.start({ appendfsync: "always" }).pipe(Scope.extend(scope))
      const folder = yield* settingOf(server, "dir")

      assert.isTrue(isAlive(server.pid) && existsSync(folder ?? ""))
      yield* Scope.close(scope, Exit.void)

      assert.isFalse(isAlive(server.pid) || existsSync(folder ?? ""))
    }))

  it.scopedLive("can be killed before", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.start({})

      yield* server.stop("SIGKILL")

      assert.isFalse(isAlive(server.pid))
      yield* Effect.flip(RedisServer.execute(server.url, "PING"))
    }))

  it.live("does not outlive a process that was killed", () =>
    Effect.gen(function*() {
      const program = yield* Effect.promise(() => compiled(redisOwner))
      const owner = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "inherit"] })
      const line = yield* Effect.promise(() => once(owner.stdout, "data"))
      const [pid, folder] = JSON.parse(String(line[0])) as [number, string]

      assert.isTrue(isAlive(pid) && existsSync(folder))
      owner.kill("SIGKILL")

      yield* Effect.sync(() => isAlive(pid) || existsSync(folder)).pipe(
        Effect.repeat({ while: (left) => left, schedule: Schedule.spaced("50 millis") }),
        Effect.timeout("20 seconds")
      )
    }))
})
