/**
 * What hints and spanning limits on Redis do, in processes of their own on this machine:
 *
 *   limit     a strict limit of 1,000 a second, used by 8 consumers in 3 processes for 20 s: the most in any second, wherever it
 *             begins, and what part of the limit is used
 *   signals   500 events a second for 20 s from one process to a watcher in another: from publishing to knowing
 *
 * `--seconds N` for less or more. Prints one JSON object.
 */
import { NodeRuntime } from "@effect/platform-node"
import * as Limits from "@orrery/core/Limits"
import * as RateLimiter from "@orrery/core/RateLimiter"
import { Signals } from "@orrery/core/Signals"
import * as RedisClients from "@orrery/signals-redis/RedisClients"
import * as RedisConfig from "@orrery/signals-redis/RedisConfig"
import * as RedisLimitStore from "@orrery/signals-redis/RedisLimitStore"
import * as RedisSignals from "@orrery/signals-redis/RedisSignals"
import { mostInWindow } from "@orrery/testing/limitSamples"
import * as RedisServer from "@orrery/testing/RedisServer"
import { event, openWatch } from "@orrery/testing/signalSamples"
import { Console, Effect, Layer, Redacted } from "effect"
import { spawn } from "node:child_process"
import { quantiles } from "./statistics.js"

const limit = 1_000
const windowMs = 1_000
/** Consumers of each process. */
const consumers = [3, 3, 2]
/** Uses each consumer has under way. */
const usesAtOnce = 8
const eventsPerSecond = 500
/** All processes use the limit by then, as fast as they may. */
const warmUpMs = 2_000
const tickMs = 10
const secondsDefault = 20

const urlVariable = "ORRERY_REDIS_FIGURES_URL"
const queue = { namespace: "bench", queue: "redis-figures" }

/** The monotonic clock of the machine, µs: the same for all its processes. */
const nowMicros = () => Number(process.hrtime.bigint() / 1_000n)

const secondsGiven = (): number => {
  const at = process.argv.indexOf("--seconds")
  return at < 0 ? secondsDefault : Number(process.argv[at + 1])
}

const services = Layer.mergeAll(RedisSignals.layer, Layer.provide(Limits.layer, RedisLimitStore.layer)).pipe(
  Layer.provideMerge(RedisClients.layer),
  Layer.provide(Layer.suspend(() => RedisConfig.layer({ url: Redacted.make(process.env[urlVariable] ?? "") })))
)

/** In its own process: uses the limit until it is told to end, and says when it did. */
const consume = (count: number) =>
  Effect.gen(function*() {
    const limiter = RateLimiter.make("redis-figures", { limit, per: windowMs })
    yield* limiter.take()
    process.stdout.write("consuming\n")
    const times: Array<number> = []
    let isOver = false
    process.stdin.once("data", () => isOver = true)
    const use = Effect.zipRight(limiter.take(), Effect.sync(() => void times.push(nowMicros())))
    yield* Effect.forEach(
      Array.from({ length: count * usesAtOnce }),
      () => Effect.repeat(use, { while: () => !isOver }),
      { concurrency: count * usesAtOnce, discard: true }
    )
    process.stdin.destroy()
    const { commands } = yield* RedisClients.RedisClients
    return { times, calls: commands.health().commands }
  })

/** In its own process: learns of so many events, and says when. */
const watch = (count: number) =>
  Effect.gen(function*() {
    const known = new Map<string, number>()
    const { next } = yield* openWatch(queue)
    yield* next
    process.stdout.write("watching\n")
    while (known.size < count) {
      const item = yield* next
      if (item._tag === "events") { for (const { id } of item.events) known.set(id, nowMicros()) }
    }
    return [...known]
  })

interface Child<A> {
  readonly begun: Promise<void>
  readonly end: () => void
  readonly result: Promise<A>
}

/** This program in another role; its last line is its result. */
const child = <A>(url: Redacted.Redacted<string>, ...role: ReadonlyArray<string>): Child<A> => {
  const started = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...role], {
    env: { ...process.env, [urlVariable]: Redacted.value(url) },
    stdio: ["pipe", "pipe", "inherit"]
  })
  let output = ""
  const begun = new Promise<void>((resolve) => {
    started.stdout.setEncoding("utf8")
    started.stdout.on("data", (text: string) => {
      output += text
      resolve()
    })
  })
  const result = new Promise<A>((resolve, reject) => {
    started.once("close", (code) => {
      if (code === 0) resolve(JSON.parse(output.trim().split("\n").at(-1)!) as A)
      else reject(new Error(`${role.join(" ")} ended with code ${code}`))
    })
  })
  return { begun, end: () => void started.stdin.write("end\n"), result }
}

const limitFigures = (url: Redacted.Redacted<string>, seconds: number) =>
  Effect.promise(async () => {
    const children = consumers.map((count) =>
      child<{ readonly times: ReadonlyArray<number>; readonly calls: number }>(
        url,
        "consume",
        String(count)
      )
    )
    await Promise.all(children.map(({ begun }) => begun))
    await new Promise((resolve) => setTimeout(resolve, warmUpMs))
    const from = nowMicros()
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
    for (const { end } of children) end()
    const results = await Promise.all(children.map(({ result }) => result))
    const all = results.flatMap(({ times }) => times)
    const counted = all.filter((time) => time >= from && time < from + seconds * 1_000_000)
    const calls = results.reduce((sum, each) => sum + each.calls, 0)
    return {
      limitPerSecond: limit,
      consumers: consumers.reduce((sum, each) => sum + each, 0),
      processes: consumers.length,
      seconds,
      uses: counted.length,
      mostInAnySecond: mostInWindow(all.map((micros) => micros / 1_000), windowMs),
      usedPercent: Math.round(counted.length / (limit * seconds) * 1_000) / 10,
      usesByProcess: results.map(({ times }) => times.length),
      usesPerCall: Math.round(all.length / calls * 10) / 10
    }
  })

const signalFigures = (url: Redacted.Redacted<string>, seconds: number) =>
  Effect.gen(function*() {
    process.env[urlVariable] = Redacted.value(url)
    const count = eventsPerSecond * seconds
    const watcher = child<ReadonlyArray<readonly [string, number]>>(url, "watch", String(count))
    const published = new Map<string, number>()
    yield* Effect.gen(function*() {
      const signals = yield* Signals
      const signal = signals.queue(queue)
      yield* Effect.promise(() => watcher.begun)
      // The publisher has learnt that somebody watches.
      yield* Effect.sleep("500 millis")
      const from = nowMicros()
      while (published.size < count) {
        const due = Math.min(count, Math.floor((nowMicros() - from) / 1_000_000 * eventsPerSecond))
        while (published.size < due) {
          const each = event()
          published.set(each.id, nowMicros())
          signal.publish(() => [each])
        }
        yield* Effect.sleep(tickMs / 5)
      }
      // Until the last has been sent.
      yield* Effect.promise(() => watcher.result)
    }).pipe(Effect.provide(services))
    const known = yield* Effect.promise(() => watcher.result)
    const latencies = known.map(([id, at]) => (at - published.get(id)!) / 1_000)
    return { eventsPerSecond, events: latencies.length, latencyMs: quantiles(latencies) }
  })

const measure = Effect.gen(function*() {
  const seconds = secondsGiven()
  const { url, version } = yield* RedisServer.start({})
  const limits = yield* limitFigures(url, seconds)
  const signals = yield* signalFigures(url, seconds)
  yield* Console.log(JSON.stringify({ redis: version, limits, signals }, undefined, 2))
}).pipe(Effect.scoped)

const printed = <A, E, R>(result: Effect.Effect<A, E, R>) =>
  Effect.flatMap(result, (value) => Console.log(JSON.stringify(value)))

const [role, ...numbers] = process.argv.slice(2)
const count = Number(numbers[0] ?? 0)
const roles: Readonly<Record<string, Effect.Effect<void, unknown>>> = {
  consume: printed(consume(count)).pipe(Effect.provide(services)),
  watch: printed(watch(count)).pipe(Effect.scoped, Effect.provide(services))
}

NodeRuntime.runMain(roles[role ?? ""] ?? measure)
