/**
 * What limits that span queues cost where they hold nobody back: one node, as many runs as asked for in a paused queue, resumed, and
 * how fast they are drained; without a limit, with a strict and a relaxed rate of a million a second, and with 10,000 permits, in turn.
 *
 *   actors   kept by the limiter actors of the cluster
 *   redis    kept by a Redis
 *
 * `--runs N` of each drain, `--rounds N`. Prints one JSON object: runs a second, medians over the rounds, and how much less than
 * without a limit each is, in percent, as the median over the rounds.
 */
import { NodeRuntime } from "@effect/platform-node"
import type { StartLimiter } from "@orrery/core/TaskLimiters"
import { ConcurrencyLimiter, Orrery, Queues, RateLimiter, Task } from "@orrery/orrery"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import * as RedisServer from "@orrery/testing/RedisServer"
import { Console, Deferred, Effect, Layer, Logger, LogLevel, type Redacted, Schema } from "effect"

const number = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? fallback : Number(process.argv[at + 1])
}
const runs = number("runs", 30_000)
const rounds = number("rounds", 5)
const slots = 200
const chunk = 5_000

const Payload = Schema.Struct({ n: Schema.Number })

const limiters: Readonly<Record<string, ReadonlyArray<StartLimiter<unknown>>>> = {
  none: [],
  strict: [RateLimiter.make("figures-strict", { limit: 1_000_000, per: "1 second" })],
  relaxed: [RateLimiter.make("figures-relaxed", { limit: 1_000_000, per: "1 second", exactness: "relaxed" })],
  permits: [ConcurrencyLimiter.make("figures-permits", { limit: 10_000 })]
}

const tasks = Object.entries(limiters).map(([name, list]) => ({
  name,
  task: Task.make(`figures-${name}`, {
    payload: Payload,
    queue: `figures-${name}`,
    retention: "none",
    ...list.length === 0 ? {} : { limiters: list }
  })
}))

/** Told at each start. */
let started = () => {}

const [first, ...rest] = tasks.map(({ task }) => task.toLayer(() => Effect.sync(() => started())))
const handlers = Layer.mergeAll(first!, ...rest)

/** Runs a second, from the word that they may to the start of the last. */
const drain = ({ task }: typeof tasks[number]) =>
  Effect.gen(function*() {
    const queues = yield* Queues
    const of = { namespace: "default", queue: task.queue, by: "figures" }
    yield* queues.call({ _tag: "pause", ...of, why: "they come first" })
    for (let at = 0; at < runs; at += chunk) {
      yield* task.enqueueMany(Array.from({ length: Math.min(chunk, runs - at) }, (_, n) => ({ n })))
    }
    const done = yield* Deferred.make<void>()
    let count = 0
    started = () => {
      if (++count === runs) Deferred.unsafeDone(done, Effect.void)
    }
    const from = performance.now()
    yield* queues.call({ _tag: "resume", ...of })
    yield* Deferred.await(done)
    return runs / (performance.now() - from) * 1_000
  })

const median = (values: ReadonlyArray<number>): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0

const measured = Effect.gen(function*() {
  const rates = new Map(tasks.map(({ name }) => [name, [] as Array<number>]))
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    // In another order each time: what comes later meets a fuller database.
    for (let at = 0; at < tasks.length; at++) {
      const each = tasks[(at + round) % tasks.length]!
      const rate = yield* drain(each)
      if (round > 0) rates.get(each.name)!.push(rate)
      yield* Effect.sleep("500 millis")
    }
  }
  const plain = rates.get("none")!
  return Object.fromEntries(
    [...rates].map(([name, all]) => [name, {
      perSecond: Math.round(median(all)),
      lessPercent: Math.round(median(all.map((rate, round) => 100 - rate / plain[round]! * 100)) * 10) / 10,
      all: all.map(Math.round)
    }])
  )
})

const nodeOn = (databaseUrl: Redacted.Redacted<string>) =>
  Orrery.layerNode({ databaseUrl, workerSlots: slots, handlers })

const program = Effect.gen(function*() {
  const server = yield* EmbeddedPostgres.start({ dataDir: ".orrery/bench/limiters" })
  const url = yield* EmbeddedPostgres.createDatabase(server, `limiters_${process.pid}`)
  const actors = yield* Effect.provide(measured, nodeOn(url))
  const redis = yield* RedisServer.start({})
  const onRedis = yield* Effect.provide(
    measured,
    Layer.provide(nodeOn(url), Orrery.layerRedis({ url: redis.url }))
  )
  yield* Console.log(JSON.stringify({ runs, rounds, slots, actors, redis: onRedis }, undefined, 2))
})

NodeRuntime.runMain(Effect.scoped(program).pipe(Logger.withMinimumLogLevel(LogLevel.Warning)))
