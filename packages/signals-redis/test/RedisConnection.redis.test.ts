import { assert, describe, it } from "@effect/vitest"
import { EndStore } from "@orrery/core/EndStore"
import { LimitStore } from "@orrery/core/LimitStore"
import { Signals } from "@orrery/core/Signals"
import { limitName } from "@orrery/testing/limitSamples"
import { event, openWatch, sampleQueue } from "@orrery/testing/signalSamples"
import { timedAwake } from "@orrery/testing/standStill"
import { Context, Effect, Exit, Fiber, Inspectable, Logger, LogLevel, Option, Redacted, Schedule, Scope } from "effect"
import { readFileSync } from "node:fs"
import * as RedisAcl from "../src/RedisAcl.js"
import { RedisClients } from "../src/RedisClients.js"
import * as rig from "./redisRig.js"

const until = (what: Effect.Effect<boolean>) =>
  what.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("10 seconds")
  )
const isUp = (context: Context.Context<rig.Services>) =>
  until(Effect.sync(() => Context.get(context, RedisClients).health().every((each) => each.isUp)))

const rate = () => ({ name: limitName(), limit: 10, perMs: 100, exactness: "strict", burst: 10 } as const)

describe.concurrent("RedisConnection", () => {
  it.scopedLive("needs no command that is dangerous to others, and each that it asks the right for", () =>
    Effect.gen(function*() {
      const { admin, server, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      yield* isUp(process)
      const exercise = Effect.gen(function*() {
        const limits = yield* LimitStore
        const queue = sampleQueue()
        const watch = yield* openWatch(queue)
        yield* watch.next
        const told = event()
        Context.get(process, Signals).queue(queue).publish(() => [told])
        const { cursor } = yield* watch.events(1)
        Context.get(process, Signals).queue(queue).publish(() => [told])
        yield* watch.events(1)
        yield* Effect.flatMap(openWatch(queue, cursor), (again) => again.next)
        yield* limits.grant(rate(), { min: 1, want: 1, validMs: 1 })
        const waits = rate()
        yield* limits.grant(waits, { min: 1, want: 1, validMs: 1 })
        yield* Effect.sleep(110)
        yield* limits.grant(waits, { min: 1, want: 1, validMs: 1 })
        yield* Effect.sleep(110)
        yield* limits.grant(waits, { min: 1, want: 1, validMs: 1 })
        yield* limits.grant({ ...rate(), exactness: "relaxed" }, { min: 1, want: 1, validMs: 1 })
        const permit = { name: limitName(), limit: 1, leaseMs: 1_000, exactness: "relaxed" } as const
        yield* limits.acquire(permit, "a")
        yield* limits.acquire(permit, "b")
        yield* limits.renew(permit, "a")
        yield* limits.release(permit, "a")
        const ends = yield* EndStore
        ends.put(told.id, "end", 1_000)
        yield* until(Effect.map(ends.get(told.id), (text) => text === "end"))
      }).pipe(Effect.scoped, Effect.provide(process))
      yield* admin("ACL", "LOG", "RESET")
      yield* exercise

      const refused = yield* admin("ACL", "LOG")
      const dangerous = (yield* admin("ACL", "CAT", "dangerous")).split("\r\n")

      assert.strictEqual(refused, "*0")
      // INFO tells and does nothing; of the rest none may be there.
      assert.deepStrictEqual(RedisAcl.commands.filter((each) => dangerous.includes(each)), ["info"])
      const info = yield* admin("INFO", "commandstats")
      const used = new Set([...info.matchAll(/cmdstat_([a-z|]+):/g)].map(([, name]) => name!))
      const others = ["select", "eval", "get", "del", "cluster|slots", "readonly", "unsubscribe"]
      assert.deepStrictEqual(RedisAcl.commands.filter((each) => !used.has(each) && !others.includes(each)), [])
      yield* Effect.flip(Effect.sandbox(Effect.provide(
        Effect.flatMap(RedisClients, ({ commands }) => commands.use("flush", (client) => client.flushall())),
        process
      )))
      assert.isAbove(server.pid, 0)
    }))

  it("documents the rights as they are", () => {
    const page = readFileSync(new URL("../../../docs/redis.md", import.meta.url), "utf8")

    assert.include(page, RedisAcl.rules("orrery").join(" "))
  })

  it.scopedLive("sends scripts again that Redis has forgotten", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const grant = Effect.provide(
        Effect.flatMap(LimitStore, (limits) => limits.grant(rate(), { min: 1, want: 1, validMs: 1 })),
        process
      )
      yield* grant
      const scripts = () =>
        Effect.map(admin("INFO", "memory"), (info) => /number_of_cached_scripts:(\d+)/.exec(info)?.[1])
      const before = yield* scripts()

      yield* admin("SCRIPT", "FLUSH")
      const flushed = yield* scripts()
      yield* Effect.all([grant, grant, grant], { concurrency: 3 })

      assert.deepStrictEqual([before, flushed, yield* scripts()], ["1", "0", "1"])
    }))

  it.scopedLive("lets so many wait for a connection, so long, and no more", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { server, url } = yield* Scope.extend(rig.start(), scope)
      yield* server.stop("SIGKILL")
      const process = yield* rig.open({ url, offlineCommandsMax: 5, commandTimeoutMs: 150 })
      const { commands } = Context.get(process, RedisClients)
      const ask = Effect.flip(commands.use("ping", (client) => client.ping()))

      const fibers = yield* Effect.forEach(Array.from({ length: 8 }), () => Effect.fork(ask))
      yield* Effect.sleep("20 millis")
      const { refused, waiting } = commands.health()
      const [tookMs, errors] = yield* timedAwake(Effect.forEach(fibers, (fiber) => Fiber.join(fiber)))

      assert.isAtMost(waiting, 5)
      assert.isAtLeast(refused, 3)
      assert.isBelow(tookMs, 1_000)
      assert.deepStrictEqual(new Set(errors.map((error) => error._tag)), new Set(["RedisUnavailable"]))
      assert.strictEqual(commands.health().waiting, 0)
      yield* Scope.close(scope, Exit.void)
    }))

  it.scopedLive("waits inside Redis on a connection that holds no other up", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const process = yield* rig.open({ url })
      const { blocking, commands } = Context.get(process, RedisClients)
      const connection = yield* blocking
      // Not among the rights: nothing of ours waits inside Redis.
      yield* admin("ACL", "SETUSER", "orrery-node", "+xread")
      const xread = connection.use(
        "xread",
        (client) => client.xread("BLOCK", 0, "STREAMS", `${rig.prefix}:none`, "$"),
        20_000
      )
      const waiting = yield* Effect.fork(xread)
      yield* until(Effect.map(admin("INFO", "clients"), (told) => told.includes("blocked_clients:1")))
      const answer = yield* commands.use("ping", (client) => client.ping())
      const isWaiting = Option.isNone(yield* Fiber.poll(waiting))
      yield* admin("XADD", `${rig.prefix}:none`, "*", "field", "value")

      assert.strictEqual(answer, "PONG")
      assert.isTrue(isWaiting)
      assert.include((yield* Fiber.join(waiting))?.[0]?.[1][0]?.[1] ?? [], "value")
    }))

  it.scopedLive("closes its connections when its scope closes, after the answers that are under way", () =>
    Effect.gen(function*() {
      const { admin, url } = yield* rig.start()
      const scope = yield* Scope.make()
      const process = yield* Scope.extend(rig.open({ url }), scope)
      yield* isUp(process)
      const names = () =>
        Effect.map(admin("CLIENT", "LIST"), (list) => [...list.matchAll(/name=(orrery-\w+)/g)].map(([, name]) => name))
      const open = yield* names()
      const { commands } = Context.get(process, RedisClients)
      const answer = yield* Effect.fork(commands.use("ping", (client) => client.ping()))
      yield* Effect.yieldNow()

      yield* Scope.close(scope, Exit.void)

      assert.sameMembers(open as Array<string>, ["orrery-commands", "orrery-subscriber"])
      assert.strictEqual(yield* Fiber.join(answer), "PONG")
      yield* until(Effect.map(names(), (left) => left.length === 0))
      assert.strictEqual((yield* Effect.flip(commands.use("ping", (client) => client.ping())))._tag, "RedisUnavailable")
    }))

  it.scopedLive("tells no password, in no log and no error", () =>
    Effect.gen(function*() {
      const { server } = yield* rig.start()
      const canary = "canary-5f1d"
      const url = Redacted.make(`redis://orrery-node:${canary}@127.0.0.1:${server.port}`)
      const lines: Array<string> = []
      const logger = Logger.make(({ annotations, cause, message }) =>
        void lines.push(Inspectable.toStringUnknown([message, annotations, cause]))
      )
      const process = yield* Effect.provide(rig.open({ url }), Logger.replace(Logger.defaultLogger, logger)).pipe(
        Logger.withMinimumLogLevel(LogLevel.Trace)
      )
      const { commands, health } = Context.get(process, RedisClients)

      const error = yield* Effect.flip(commands.use("ping", (client) => client.ping()))
      yield* until(Effect.sync(() => lines.length > 0))

      assert.include(`${error.message}${lines.join()}${JSON.stringify(health())}`, "WRONGPASS")
      assert.notInclude(`${Inspectable.toStringUnknown(error)}${lines.join()}${JSON.stringify(health())}`, canary)
    }))
})
