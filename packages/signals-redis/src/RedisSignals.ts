/**
 * Signals between processes: each commit of a watched queue is a message that is numbered, kept in a capped stream, and
 * published, in one call.
 *
 *   nobody watches       nothing is sent
 *   Redis is away        watchers poll: a gap at once and every 0.8 s
 *   a publication fails  its watchers are owed a gap, and get it when Redis takes it
 *   what nobody sees     (a publisher that Redis does not hear while watchers are heard) a gap every 5 s, and every 0.8 s
 *                        while it says so by another way (`doubt`)
 */
import { pollMs, queueKey, Signals, type SignalsHealth, type SignalsService } from "@orrery/core/Signals"
import { Context, Effect, FiberSet, Layer } from "effect"
import { announcements, decode as decodeInterest, Interest, question, renewMs } from "./Interest.js"
import { RedisClients } from "./RedisClients.js"
import { publishFrame, run } from "./RedisScripts.js"
import { RedisWatch, type WatchKeys } from "./RedisWatch.js"
import * as SignalFrame from "./SignalFrame.js"

/** Messages kept per queue for watches to come, about. */
const streamFrames = 1_000
/** A queue nobody publishes to leaves Redis after this, ms. */
const ttlMs = 3_600_000
/** Publications on their way; beyond, watchers get a gap instead. */
const publishingMax = 256
/** Queues whose watchers are owed a gap. Beyond, those of the rest find out by the next safety gap. */
const owedMax = 10_000
const owedRetry = { first: 100, most: 500 }
const owedAtOnce = 16
/** At most one answer to the question who watches in this time, ms. */
const answerPauseMs = 100

export interface Counters {
  readonly published: number
  /** Publications that were replaced by a gap. */
  readonly failed: number
  /** Messages that are none of ours. */
  readonly malformed: number
  /** Told to watchers when Redis was lost or did not answer, and while it is away. */
  readonly gaps: number
  /** Told to watchers every 5 s for what nobody can see, and while there is doubt. */
  readonly safetyGaps: number
  readonly watches: number
  readonly owed: number
}

/** Since the start, and now. */
export class RedisSignalsCounters
  extends Context.Tag("@orrery/signals-redis/RedisSignalsCounters")<RedisSignalsCounters, () => Counters>()
{}

const make = Effect.gen(function*() {
  const { commands, prefix, subscriber } = yield* RedisClients
  const clock = yield* Effect.clock
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const background = (effect: Effect.Effect<void>): void => void fork(effect)
  const interest = new Interest(() => Number(clock.unsafeCurrentTimeNanos()) / 1e6)
  const watches = new Map<RedisWatch, string>()
  const owed = new Set<string>()
  const wakeOwed = yield* Effect.makeLatch(false)
  const counters = { published: 0, failed: 0, malformed: 0, gaps: 0, safetyGaps: 0 }
  let publishing = 0

  const control = `${prefix}:control`
  const channelOf = (key: string) => `${prefix}:queue:${key}`
  const keysOf = (key: string): WatchKeys => ({
    hash: `${prefix}:queue:{${key}}:position`,
    stream: `${prefix}:queue:{${key}}:frames`,
    ttlMs
  })

  const send = (key: string, frame: string) => {
    const { hash, stream } = keysOf(key)
    return run(commands, publishFrame, [hash, stream], [frame, streamFrames, ttlMs, channelOf(key)])
  }
  const say = (channel: string, message: string) =>
    Effect.ignore(commands.use("publish", (client) => client.publish(channel, message)))

  const owe = (key: string): void => {
    counters.failed += 1
    if (owed.size < owedMax) owed.add(key)
    wakeOwed.unsafeOpen()
  }
  const publish = (key: string, frame: string): void => {
    // Told in order: what comes after a gap that is owed is part of it.
    if (publishing >= publishingMax || owed.has(key)) return owe(key)
    publishing += 1
    background(
      send(key, frame).pipe(
        Effect.match({ onSuccess: () => void (counters.published += 1), onFailure: () => owe(key) }),
        Effect.ensuring(Effect.sync(() => publishing -= 1))
      )
    )
  }

  /** Without room or right to write there may still be room to speak. */
  const settle = (key: string) =>
    Effect.suspend(() => {
      owed.delete(key)
      return Effect.catchAll(send(key, SignalFrame.many), () =>
        Effect.zipRight(Effect.sync(() => owed.add(key)), say(channelOf(key), SignalFrame.unnumbered)))
    })
  yield* Effect.gen(function*() {
    yield* wakeOwed.await
    let pause = owedRetry.first
    while (owed.size > 0) {
      const before = owed.size
      yield* Effect.forEach([...owed], settle, { concurrency: owedAtOnce, discard: true })
      pause = owed.size < before ? owedRetry.first : Math.min(owedRetry.most, pause * 2)
      if (owed.size > 0) yield* Effect.sleep(pause)
    }
    yield* wakeOwed.close
    if (owed.size > 0) yield* wakeOwed.open
  }).pipe(Effect.forever, Effect.forkScoped)

  const announce = Effect.suspend(() =>
    Effect.forEach(announcements([...new Set(watches.values())]), (message) => say(control, message), { discard: true })
  )
  let isAnswering = false
  let isAskedAgain = false
  const answer = (): void => {
    if (watches.size === 0) return
    // By one who may not have heard the answer there was.
    if (isAnswering) return void (isAskedAgain = true)
    isAnswering = true
    isAskedAgain = false
    background(
      Effect.zipRight(announce, Effect.sleep(answerPauseMs)).pipe(
        Effect.ensuring(Effect.sync(() => isAnswering = false)),
        Effect.zipRight(Effect.sync(() => isAskedAgain ? answer() : undefined))
      )
    )
  }
  const learn = (key: string): void => {
    if (interest.learn(key)) owe(key)
  }
  const heardControl = (bytes: Buffer): void => {
    const message = decodeInterest(bytes)
    if (message === undefined) counters.malformed += 1
    else if (message === question) answer()
    else for (const key of message) learn(key)
  }

  const stop = subscriber.onChange((isUp) => {
    if (isUp) background(Effect.zipRight(say(control, question), announce))
    for (const watch of watches.keys()) {
      if (isUp) watch.look()
      else watch.lost()
    }
  })
  yield* Effect.addFinalizer(() => Effect.sync(stop))
  // One that fails is made good when there is a connection.
  yield* Effect.ignore(subscriber.subscribe(control, heardControl)).pipe(
    Effect.zipRight(say(control, question)),
    Effect.forkScoped
  )

  const now = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6
  let doubtUntil = -Infinity
  const doubt = (): void => {
    const isNew = now() >= doubtUntil
    doubtUntil = now() + 2 * pollMs
    if (isNew) { for (const watch of watches.keys()) if (!watch.mustPoll) watch.safetyGap() }
  }
  yield* Effect.sync(() => {
    const isDoubted = now() < doubtUntil
    for (const watch of watches.keys()) {
      if (!watch.mustPoll) {
        if (isDoubted) watch.safetyGap()
        continue
      }
      watch.gap()
      if (subscriber.isUp()) watch.look()
    }
  }).pipe(Effect.delay(pollMs), Effect.forever, Effect.forkScoped)
  yield* Effect.suspend(() => {
    for (const watch of watches.keys()) if (!watch.mustPoll) watch.safetyGap()
    return announce
  }).pipe(Effect.delay(renewMs), Effect.forever, Effect.forkScoped)

  const signals: SignalsService = {
    queue: (name) => {
      const key = queueKey(name)
      return {
        publish: (events) => {
          if (!interest.isWatched(key)) return interest.kept(key)
          const told = events()
          if (told.length > 0) publish(key, SignalFrame.encode(told))
        }
      }
    },
    watch: (name, options = {}) => {
      const key = queueKey(name)
      const watch = new RedisWatch({ commands, keys: keysOf(key), fork: background, after: options.after, counters })
      const heard = (bytes: Buffer): void => {
        const message = SignalFrame.decodeMessage(bytes)
        if (message === undefined) counters.malformed += 1
        else watch.heard(message)
      }
      return Effect.acquireRelease(
        Effect.sync(() => {
          watches.set(watch, key)
          if (!subscriber.isUp()) watch.lost()
        }),
        () => Effect.sync(() => void watches.delete(watch))
      ).pipe(
        // Heard first, then known to publishers, then looked at: what is committed between is in one of them.
        Effect.zipRight(subscriber.subscribe(channelOf(key), heard)),
        Effect.catchAll(() => Effect.sync(() => watch.lost())),
        Effect.zipRight(Effect.sync(() => learn(key))),
        Effect.zipRight(say(control, announcements([key])[0]!)),
        // Otherwise it polls, and looks when there is a connection again.
        Effect.zipRight(Effect.sync(() => {
          if (subscriber.isUp()) watch.look()
        })),
        Effect.as(watch.buffer.stream)
      )
    },
    health: () => healthOf(),
    doubt
  }
  const healthOf = (): SignalsHealth => {
    const isUp = commands.isUp() && subscriber.isUp()
    const { lastError } = commands.isUp() ? subscriber.health() : commands.health()
    return { kind: "redis", isUp, detail: isUp ? "connected" : lastError ?? "not connected yet" }
  }
  return Context.make(Signals, signals).pipe(
    Context.add(RedisSignalsCounters, () => ({ ...counters, watches: watches.size, owed: owed.size }))
  )
})

/** Connects in the background; before and without Redis, watchers poll. */
export const layer: Layer.Layer<Signals | RedisSignalsCounters, never, RedisClients> = Layer.scopedContext(make)
