/**
 * One connection to Redis that comes back by itself. Every connection is a new client: nothing of a broken one, no queue, no
 * half pipeline, is carried over, and nothing is sent twice.
 *
 *   bounded   commands wait for a connection and for an answer, so many and so long; then `RedisUnavailable`
 *   alive     probed: a peer that is silent is as gone as one that hung up
 *   honest    what a command did is unknown when its answer did not come; callers send what may be sent twice
 */
import { Clock, Data, Deferred, Effect, FiberId, Option, Schedule, type Scope } from "effect"
import type { Redis } from "ioredis"
import { makeClient, type Role } from "./makeClient.js"
import type { Values } from "./RedisConfig.js"

/** Redis did not answer, or refused. What was asked may or may not have happened. */
export class RedisUnavailable extends Data.TaggedError("RedisUnavailable")<{
  readonly operation: string
  readonly reason: string
}> {
  override get message() {
    return `Redis unavailable in ${this.operation}: ${this.reason}`
  }
}

/** Since the start, and now. */
export interface ConnectionHealth {
  readonly role: Role
  readonly isUp: boolean
  /** Connections made. */
  readonly connects: number
  readonly commands: number
  readonly failures: number
  /** Of the failures: no answer in time. */
  readonly timeouts: number
  /** Of the failures: more waited already than may. */
  readonly refused: number
  readonly waiting: number
  readonly unanswered: number
  /** What Redis or the network said last; never a URL or a password. */
  readonly lastError: string | undefined
}

export interface RedisConnection {
  /** The answer to a command, within `timeoutMs` (default: `commandTimeoutMs`). */
  readonly use: <A>(
    operation: string,
    run: (client: Redis) => Promise<A>,
    timeoutMs?: number
  ) => Effect.Effect<A, RedisUnavailable>
  readonly isUp: () => boolean
  /** Calls back at each change. Answers how to stop. */
  readonly onChange: (callback: (isUp: boolean) => void) => () => void
  /** Names the process that answers: another one after a restart or a fail-over. Empty: unknown (Cluster, or no `INFO`). */
  readonly serverId: () => string
  readonly health: () => ConnectionHealth
}

/** Between two tries to connect: 50 ms doubling to 500 ms, ±20 %; from the start again after 2 s of quiet. */
const reconnect = Schedule.exponential("50 millis").pipe(
  Schedule.union(Schedule.spaced("500 millis")),
  Schedule.jittered,
  Schedule.resetAfter("2 seconds")
)
/** Answers under way when the scope closes are waited for this long. */
const closeWithin = "500 millis"
/** A timer that fires late must not make an answer that lies in the socket count as missing. */
const probeGrace = "10 millis"

/** The server cannot serve, another may: connect anew. */
const mustReconnect = /^(?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|UNBLOCKED|NOREPLICAS|NOAUTH)\b/

interface State {
  readonly role: Role
  readonly config: Values
  client: Redis | undefined
  /** Completed when there is a client. */
  up: Deferred.Deferred<void>
  /** Ends the session there is. */
  end: ((reason: string) => void) | undefined
  isClosing: boolean
  serverId: string
  readonly listeners: Set<(isUp: boolean) => void>
  /** To connect. */
  tries: number
  connects: number
  commands: number
  failures: number
  timeouts: number
  refused: number
  waiting: number
  unanswered: number
  lastError: string | undefined
}

export interface ConnectionOptions {
  readonly role: Role
  readonly config: Values
  /** With each new client, before anyone may use it. */
  readonly prepare?: (client: Redis) => Promise<unknown>
}

/** Connects in the background until the scope closes. */
export const make = (options: ConnectionOptions): Effect.Effect<RedisConnection, never, Scope.Scope> =>
  Effect.gen(function*() {
    const state: State = {
      role: options.role,
      config: options.config,
      client: undefined,
      up: Deferred.unsafeMake<void>(FiberId.none),
      end: undefined,
      isClosing: false,
      serverId: "",
      listeners: new Set(),
      tries: 0,
      connects: 0,
      commands: 0,
      failures: 0,
      timeouts: 0,
      refused: 0,
      waiting: 0,
      unanswered: 0,
      lastError: undefined
    }
    yield* session(state, options.prepare).pipe(
      Effect.tapError((error) => note(state, error)),
      Effect.retry(reconnect),
      Effect.annotateLogs({ module: "RedisConnection", role: state.role }),
      Effect.forkScoped
    )
    yield* Effect.addFinalizer(() => settle(state))
    return {
      use: use(state),
      isUp: () => state.client !== undefined,
      onChange: (callback) => {
        state.listeners.add(callback)
        return () => void state.listeners.delete(callback)
      },
      serverId: () => state.serverId,
      health: () => healthOf(state)
    }
  })

const healthOf = (state: State): ConnectionHealth => ({
  role: state.role,
  isUp: state.client !== undefined,
  connects: state.connects,
  commands: state.commands,
  failures: state.failures,
  timeouts: state.timeouts,
  refused: state.refused,
  waiting: state.waiting,
  unanswered: state.unanswered,
  lastError: state.lastError
})

/** From the try to connect to the end of the connection. Never succeeds. */
const session = (
  state: State,
  prepare: ConnectionOptions["prepare"]
): Effect.Effect<never, RedisUnavailable> =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<never, RedisUnavailable>()
    const end = (reason: string): void =>
      Deferred.unsafeDone(ended, Effect.fail(new RedisUnavailable({ operation: "connection", reason })))
    const client = yield* Effect.acquireRelease(
      Effect.mapError(makeClient(state.config, state.role, state.tries++), (cause) =>
        unavailable("connect", textOf(cause))),
      (made) =>
        Effect.sync(() => made.disconnect())
    )
    let said: string | undefined
    // Unheard, the event would end the process.
    client.on("error", (error: Error) => {
      said = textOf(error)
      state.lastError = said
    })
    client.on("end", () => end(state.lastError ?? "the connection ended"))
    yield* opened(state, client, prepare).pipe(
      Effect.timeoutFail({
        duration: state.config.connectTimeoutMs,
        onTimeout: () => unavailable("connect", `not ready within ${state.config.connectTimeoutMs} ms`)
      }),
      Effect.raceFirst(Deferred.await(ended)),
      // What was said first is the reason; that nothing can be sent any more follows from it.
      Effect.mapError((error) => said === undefined ? error : unavailable("connect", said))
    )
    yield* Effect.acquireRelease(
      Effect.sync(() => becameUp(state, client, end)),
      () => Effect.sync(() => becameDown(state))
    )
    yield* Effect.logDebug("connected to Redis")
    return yield* Effect.raceFirst(Deferred.await(ended), probe(state, client))
  }).pipe(Effect.scoped)

/** Logged in, loaded, prepared. */
const opened = Effect.fnUntraced(
  function*(state: State, client: Redis, prepare: ConnectionOptions["prepare"]) {
    const ask = <A>(operation: string, run: () => Promise<A>) =>
      Effect.tryPromise({ try: run, catch: (cause) => unavailable(operation, textOf(cause)) })
    yield* ask("connect", () => client.connect())
    // A server that is loading its data says so.
    yield* ask("ping", () => client.ping())
    // Nodes of a Redis Cluster each have their own, so there it tells nothing.
    const told = state.config.clusterNodes === ""
      ? yield* ask("info", () => client.info("server")).pipe(Effect.orElseSucceed(() => ""))
      : ""
    state.serverId = /^run_id:([0-9a-f]{1,64})\r?$/m.exec(told)?.[1] ?? ""
    if (prepare !== undefined) yield* ask("prepare", () => prepare(client))
  }
)

const becameUp = (state: State, client: Redis, end: (reason: string) => void): void => {
  state.client = client
  state.end = end
  state.connects += 1
  Deferred.unsafeDone(state.up, Effect.void)
  for (const listener of state.listeners) listener(true)
}

const becameDown = (state: State): void => {
  state.client = undefined
  state.end = undefined
  state.up = Deferred.unsafeMake<void>(FiberId.none)
  for (const listener of state.listeners) listener(false)
}

/** Fails when the peer is silent. The interval is from ping to ping, so a slow answer does not put the next one off. */
const probe = (state: State, client: Redis): Effect.Effect<never, RedisUnavailable> => {
  const { commandTimeoutMs, probeIntervalMs } = state.config
  let pauseMs = probeIntervalMs
  return Effect.gen(function*() {
    yield* Effect.sleep(pauseMs)
    pauseMs = probeIntervalMs
    // Who waits inside Redis has its own time limit, and nothing else is answered meanwhile.
    if (state.role === "blocking" && state.unanswered > 0) return
    const sentAt = yield* Clock.currentTimeMillis
    const answered = yield* Deferred.make<void>()
    const done = () => Deferred.unsafeDone(answered, Effect.void)
    // An error is an answer too, but one that says that nothing is served; one of a connection that broke ends the session
    // otherwise.
    client.ping().then(done, (cause: unknown) => {
      const reason = textOf(cause)
      if (mustReconnect.test(reason)) state.end?.(reason)
      done()
    })
    const inTime = yield* Deferred.await(answered).pipe(Effect.timeoutOption(commandTimeoutMs))
    if (Option.isNone(inTime)) {
      yield* Effect.sleep(probeGrace)
      if (!(yield* Deferred.isDone(answered))) {
        return yield* unavailable("probe", `no answer within ${commandTimeoutMs} ms`)
      }
    }
    pauseMs = Math.max(0, Math.min(probeIntervalMs, probeIntervalMs - ((yield* Clock.currentTimeMillis) - sentAt)))
  }).pipe(Effect.forever)
}

const use = (state: State): RedisConnection["use"] => (operation, run, timeoutMs = state.config.commandTimeoutMs) =>
  Effect.suspend(() => {
    state.commands += 1
    if (state.isClosing) return unavailable(operation, "the connection is being closed")
    const client = state.client
    return client === undefined ? afterwards(state, operation, run) : send(state, client, operation, run)
  }).pipe(
    Effect.timeoutFail({
      duration: timeoutMs,
      onTimeout: () => {
        state.timeouts += 1
        return unavailable(operation, state.lastError ?? `no answer within ${timeoutMs} ms`)
      }
    }),
    Effect.tapError(() => Effect.sync(() => state.failures += 1))
  )

const send = <A>(
  state: State,
  client: Redis,
  operation: string,
  run: (client: Redis) => Promise<A>
): Effect.Effect<A, RedisUnavailable> =>
  Effect.async<A, RedisUnavailable>((resume) => {
    if (state.unanswered >= state.config.commandsMax) {
      state.refused += 1
      return resume(unavailable(operation, `${state.unanswered} commands wait for an answer, the most that may`))
    }
    state.unanswered += 1
    const answered = (effect: Effect.Effect<A, RedisUnavailable>): void => {
      state.unanswered -= 1
      resume(effect)
    }
    run(client).then(
      (value) => answered(Effect.succeed(value)),
      (cause: unknown) => {
        const reason = textOf(cause)
        if (mustReconnect.test(reason)) state.end?.(reason)
        answered(unavailable(operation, reason))
      }
    )
  })

const afterwards = <A>(state: State, operation: string, run: (client: Redis) => Promise<A>) => {
  const { offlineCommandsMax } = state.config
  if (state.waiting >= offlineCommandsMax) {
    state.refused += 1
    return unavailable(operation, `not connected, and ${state.waiting} commands wait for it, the most that may`)
  }
  state.waiting += 1
  return Deferred.await(state.up).pipe(
    Effect.ensuring(Effect.sync(() => state.waiting -= 1)),
    Effect.zipRight(Effect.suspend(() =>
      state.client === undefined
        ? unavailable(operation, "the connection ended")
        : send(state, state.client, operation, run)
    ))
  )
}

/** Nothing new; what is under way may end. */
const settle = (state: State) =>
  Effect.suspend(() => {
    state.isClosing = true
    return Effect.iterate(undefined, {
      while: () => state.client !== undefined && state.unanswered > 0,
      body: () => Effect.sleep("5 millis")
    })
  }).pipe(Effect.timeoutOption(closeWithin))

const note = (state: State, error: RedisUnavailable) =>
  Effect.suspend(() => {
    const isNew = state.lastError !== error.reason
    state.lastError = error.reason
    // Once for each reason: it is tried twice a second.
    return isNew ? Effect.logWarning(error.message) : Effect.logDebug(error.message)
  })

const unavailable = (operation: string, reason: string) => new RedisUnavailable({ operation, reason })

/** Only the text: errors of the driver carry the arguments of their command, passwords too. */
const textOf = (cause: unknown): string => {
  const text = cause instanceof Error ? cause.message || cause.name : String(cause)
  return text.slice(0, 300)
}
