/**
 * Two processes at work on a Redis to which something happens: one publishes changes of a store of truth, the other must see
 * each of them, by hint or by reading the store when it is told to; both use a strict limit.
 */
import { assert } from "@effect/vitest"
import * as TcpProxy from "@orrery/chaos/TcpProxy"
import * as Limits from "@orrery/core/Limits"
import * as RateLimiter from "@orrery/core/RateLimiter"
import type { RunId } from "@orrery/core/RunId"
import { type QueueName, Signals } from "@orrery/core/Signals"
import { limitName, mostInWindow } from "@orrery/testing/limitSamples"
import type * as RedisServer from "@orrery/testing/RedisServer"
import { event, sampleQueue } from "@orrery/testing/signalSamples"
import { standStill } from "@orrery/testing/standStill"
import { Chunk, Context, Effect, Exit, Schedule, Scope, Stream } from "effect"
import { RedisClients } from "../src/RedisClients.js"
import type * as RedisConfig from "../src/RedisConfig.js"
import { RedisSignalsCounters } from "../src/RedisSignals.js"
import * as rig from "./redisRig.js"

const limit = 50
const windowMs = 500
/** Between two changes. */
const pauseMs = 25
/** The promise: so much later than without Redis, at most. */
const seenWithinMs = 1_000
/** What a machine that runs other tests may add: its stand-stills at each of the steps from the change to the knowledge of it. */
const stepsMax = 4

export interface Stand {
  readonly rig: rig.Rig
  readonly proxy: TcpProxy.TcpProxy
  /** Where the proxy leads to. */
  readonly target: { port: number }
  readonly isUp: Effect.Effect<void>
}

export interface Seen {
  /** How long the event loop of this process stood still at most, ms. */
  readonly busyMs: number
  /** From the change to the knowledge of it, ms. */
  readonly latencies: ReadonlyArray<number>
  readonly missed: number
  readonly owed: number
  readonly unanswered: number
  /** Uses of the limit, monotonic, ms. */
  readonly uses: ReadonlyArray<number>
}

export const until = (what: () => boolean) =>
  Effect.sync(what).pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("20 seconds"),
    Effect.orDie,
    Effect.asVoid
  )

/** Sees every change of `store`, some later than others. */
const watcher = (queue: QueueName, store: ReadonlyMap<RunId, number>, seen: Map<RunId, number>) =>
  Effect.gen(function*() {
    const signals = yield* Signals
    const see = (id: RunId): void => {
      if (!seen.has(id)) seen.set(id, performance.now())
    }
    yield* Stream.runForEachChunk(yield* signals.watch(queue), (items) =>
      Effect.sync(() => {
        for (const item of Chunk.toReadonlyArray(items)) {
          const ids = item._tag === "gap" ? store.keys() : item.events.map(({ id }) => id)
          for (const id of ids) see(id)
        }
      })).pipe(Effect.forkScoped)
  })

export interface FaultOptions {
  readonly server?: RedisServer.RedisServerOptions
  /** How the processes reach it. Default: by the proxy. */
  readonly connect?: (
    redis: rig.Rig,
    proxy: TcpProxy.TcpProxy
  ) => Effect.Effect<RedisConfig.Options, unknown, Scope.Scope>
  /** The one that watches is not behind the proxy. */
  readonly isReaderSpared?: boolean
}

export const duringFault = (
  fault: (stand: Stand) => Effect.Effect<unknown, unknown, Scope.Scope>,
  { connect, isReaderSpared = false, server = {} }: FaultOptions = {}
): Effect.Effect<Seen, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { longest: busyMs } = yield* standStill
    const redis = yield* rig.start(server)
    const target = { host: "127.0.0.1", port: redis.server.port, random: () => 0.5 }
    const proxy = yield* TcpProxy.listen(target)
    const scope = yield* Scope.make()
    const options = connect === undefined ? { url: redis.urlAt(proxy.port) } : yield* connect(redis, proxy)
    const open = (own: RedisConfig.Options) =>
      Scope.extend(rig.open({ connectTimeoutMs: 500, commandTimeoutMs: 400, ...own }), scope)
    const publisher = yield* open(options)
    const reader = yield* open(isReaderSpared ? { url: redis.url } : options)
    const clients = [publisher, reader].map((process) => Context.get(process, RedisClients))
    const isUp = until(() => clients.every(({ health }) => health().every((each) => each.isUp)))
    yield* isUp
    const queue = sampleQueue()
    const [store, seen] = [new Map<RunId, number>(), new Map<RunId, number>()]
    yield* Scope.extend(Effect.provide(watcher(queue, store, seen), reader), scope)
    const signal = Context.get(publisher, Signals).queue(queue)
    const change = Effect.sync(() => {
      const each = event()
      // Committed, then told.
      store.set(each.id, performance.now())
      signal.publish(() => [each])
    })
    yield* Effect.forkIn(Effect.forever(Effect.zipRight(change, Effect.sleep(pauseMs))), scope)
    const limiter = RateLimiter.make(limitName(), { limit, per: windowMs, waitMax: "30 seconds" })
    const uses: Array<number> = []
    const use = Effect.zipRight(limiter.take(), Effect.sync(() => void uses.push(performance.now())))
    for (const process of [publisher, reader, publisher, reader]) {
      yield* Effect.forkIn(Effect.forever(Effect.provide(use, Context.pick(Limits.Limits)(process))), scope)
    }
    yield* until(() => uses.length > 10)

    yield* fault({ rig: redis, proxy, target, isUp })
    yield* isUp
    const before = uses.length
    yield* until(() => uses.length > before + limit)
    const last = [...store.keys()].at(-1)!
    yield* until(() => seen.has(last))
    const counters = Context.get(publisher, RedisSignalsCounters)()
    const unanswered = clients.reduce((sum, { commands }) => sum + commands.health().unanswered, 0)
    // No fiber is stuck.
    yield* Scope.close(scope, Exit.void).pipe(Effect.timeout("5 seconds"))
    const known = [...store].filter(([id]) => id <= last)
    return {
      busyMs: busyMs(),
      latencies: known.map(([id, at]) => (seen.get(id) ?? Infinity) - at),
      missed: known.filter(([id]) => !seen.has(id)).length,
      owed: counters.owed,
      unanswered,
      uses
    }
  }).pipe(Effect.orDie)

export const assertUnharmed = (
  name: string,
  { busyMs, latencies, missed, owed, unanswered, uses }: Seen,
  withinMs = seenWithinMs
) => {
  const longest = Math.max(...latencies)
  // For docs/redis.md.
  if (process.env["REDIS_FAULT_FIGURES"] !== undefined) {
    const gap = Math.max(...uses.map((at, index) => index === 0 ? 0 : at - uses[index - 1]!))
    console.log(
      `${name}: seen after ${Math.round(longest)} ms at most, longest pause of the limit ${Math.round(gap)} ms, `
        + `busy for ${Math.round(busyMs)} ms`
    )
  }
  assert.strictEqual(missed, 0)
  assert.isBelow(longest, withinMs + stepsMax * busyMs)
  // What was let through while this process stood still was noted that much later.
  assert.isAtMost(mostInWindow(uses, windowMs - busyMs), limit)
  assert.isAtMost(owed, 1)
  assert.isBelow(unanswered, 300)
}
