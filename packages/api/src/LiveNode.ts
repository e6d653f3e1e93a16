/**
 * A connection to one live node of the cluster, replaced when it is lost.
 *
 * Dials the known nodes in a staggered race and keeps the first that answers. Knows the seeds for good and, once
 * connected, all live nodes. From one that says that it stops, or that others do better, and from one that lets a call wait in
 * vain, it goes to another before the connection is lost. A node that has closed the connection is tried last; one that does
 * not answer a ping within `pingTimeout` is given up, so that a frozen node costs its callers seconds, not their whole time limit.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { Duration, Effect, ExecutionStrategy, Exit, Schedule, Scope } from "effect"
import { connect, type NodeConnection } from "./NodeConnection.js"
import { leavingMsMax } from "./NodeRpcs.js"

export interface LiveNode {
  /** The open connection; waits for one as long as it takes, so give it a time limit. */
  readonly connection: Effect.Effect<NodeConnection>
  /** The open connection, if there is one now. */
  readonly current: () => NodeConnection | undefined
  /**
   * A call came to nothing though the node answers pings. After `strikesMax` in a row it is given up. For a single one that was
   * waited for in vain (half of `callTimeout` or longer) another node is gone to, at most once in each `callTimeout`, even if
   * this one answers other calls: it may not reach the owner of one queue. What is under way there has its full time to end.
   */
  readonly strike: (connection: NodeConnection, tookMs: number) => Effect.Effect<void>
  /** The node has answered a call. */
  readonly praise: (connection: NodeConnection) => void
}

/** Pause between rounds in which no node could be reached. */
export const reconnectSchedule = Schedule.exponential("50 millis", 1.7).pipe(
  Schedule.union(Schedule.spaced("1 second")),
  Schedule.jittered
)
/** Head start of each candidate before the next is dialled too. */
const stagger = Duration.millis(150)
/** Candidates of one round. */
const candidatesMax = 8
const pingInterval = Duration.millis(500)
/** Another connection costs little, so a node that is only slow may well be given up. */
const pingTimeout = Duration.millis(1_500)
/** Last part of it: where this process itself stood still, the answer lies in its socket and is read before that is over. */
const readTime = Duration.millis(250)
const nodesInterval = Duration.seconds(5)
const strikesMax = 3
/** What is under way at a node that stops has its answer by then. */
const leftWithin = Duration.seconds(1)
/** Of a call, where it is not told. */
const callTimeoutDefault = Duration.seconds(10)
/** Youngest connection that strikes can end: a cluster that is down as a whole is not dialled in a tight loop. */
const strikeAgeMsMin = 1_000

interface Current {
  readonly connection: NodeConnection
  /** Closes the connection. */
  readonly scope: Scope.CloseableScope
  /** Monotonic, ms. */
  readonly since: number
  /** Monotonic, ms: when a call was answered last. */
  answeredAt: number
  /** Opened when the node is given up. */
  readonly givenUp: Effect.Latch
  /** Opened when a call was waited for in vain. */
  readonly inVain: Effect.Latch
  strikes: number
}

interface State {
  readonly seeds: ReadonlyArray<string>
  learned: ReadonlyArray<string>
  /** Tried last. */
  lost: string | undefined
  /** Moves on when a round finds nobody or a node sends on, so that more than `candidatesMax` nodes all have their turn. */
  offset: number
  current: Current | undefined
  /** Open while there is a current connection. */
  readonly ready: Effect.Latch
}

/** Connects in the background until the scope closes. Needs at least one seed, `host:port`. `callTimeout`: of the longest calls. */
export const make = (
  seeds: ReadonlyArray<string>,
  callTimeout: Duration.Duration = callTimeoutDefault
): Effect.Effect<LiveNode, never, Scope.Scope> =>
  Effect.gen(function*() {
    if (seeds.length === 0) return yield* Effect.dieMessage("nodes must name at least one node as host:port")
    const ready = yield* Effect.makeLatch(false)
    const state: State = { seeds, learned: [], lost: undefined, offset: 0, current: undefined, ready }
    const callMs = Duration.toMillis(callTimeout)
    yield* Effect.forkScoped(keepOne(state, callTimeout, yield* Effect.scope))

    const connection: Effect.Effect<NodeConnection> = Effect.flatMap(
      ready.await,
      () => state.current === undefined ? connection : Effect.succeed(state.current.connection)
    )
    return {
      connection,
      current: () => state.current?.connection,
      strike: (failed, tookMs) =>
        Effect.suspend(() => {
          const current = state.current
          if (current?.connection !== failed) return Effect.void
          const ageMs = performance.now() - current.since
          if (++current.strikes >= strikesMax && ageMs >= strikeAgeMsMin) return current.givenUp.open
          return tookMs >= callMs / 2 && ageMs >= callMs ? current.inVain.open : Effect.void
        }),
      praise: (answered) => {
        if (state.current?.connection !== answered) return
        state.current.strikes = 0
        state.current.answeredAt = performance.now()
      }
    }
  })

/** Why a connection is given up for another. */
type Why = "lost" | "sent on" | "in vain"

/** Finds a node, then the next one. */
const keepOne = (state: State, callTimeout: Duration.Duration, parent: Scope.Scope): Effect.Effect<never> =>
  Effect.gen(function*() {
    let why = "lost" as Why
    for (;;) {
      const { connection, scope } = yield* dialled(state, parent)
      const before = state.current
      const current: Current = {
        connection,
        scope,
        since: performance.now(),
        answeredAt: 0,
        givenUp: yield* Effect.makeLatch(false),
        inVain: yield* Effect.makeLatch(false),
        strikes: 0
      }
      state.current = current
      yield* state.ready.open
      if (before !== undefined) {
        const closesAfter = why === "in vain" ? callTimeout : leftWithin
        yield* Effect.forkIn(Effect.delay(Scope.close(before.scope, Exit.void), closesAfter), parent)
      }
      why = yield* Effect.raceAll<Effect.Effect<Why>>([
        Effect.as(connection.closed, "lost"),
        Effect.as(current.givenUp.await, "lost"),
        Effect.as(untilSilent(current), "lost"),
        Effect.as(current.inVain.await, "in vain"),
        learnNodes(state, connection),
        // Where all say so they are asked in turns, and not at once.
        Effect.delay(Effect.as(untilLeaving(connection), "sent on"), why === "sent on" ? pingInterval : 0)
      ])
      state.lost = connection.address
      if (why === "sent on") state.offset += 1
      if (why === "lost") yield* drop(state, current)
      else yield* Effect.forkIn(Effect.zipRight(connection.closed, drop(state, current)), parent)
    }
  }).pipe(Effect.ensuring(Effect.sync(() => void (state.current = undefined))))

const dialled = (state: State, parent: Scope.Scope) =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const connection = yield* firstToAnswer(state).pipe(
      Effect.retry(reconnectSchedule),
      Effect.orDie,
      Scope.extend(scope)
    )
    return { connection, scope }
  })

const drop = (state: State, current: Current): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.current === current) {
      state.current = undefined
      state.ready.unsafeClose()
    }
    // Only now the connection's scope ends: whoever sees its calls fail finds another one, or waits.
    return Scope.close(current.scope, Exit.void)
  })

/** Never, at a node of an earlier release. */
const untilLeaving = (connection: NodeConnection): Effect.Effect<true> =>
  connection.call(
    "Leaving",
    (client) => client.Leaving(),
    Duration.millis(leavingMsMax + Duration.toMillis(pingTimeout))
  ).pipe(
    Effect.flatMap((isLeaving) => isLeaving ? Effect.succeed(true as const) : untilLeaving(connection)),
    Effect.catchAll(() => Effect.never)
  )

/** A node that answers other calls meanwhile is only slow. */
const untilSilent = (current: Current) =>
  Effect.suspend(() => {
    const askedAt = performance.now()
    return current.connection.call("Ping", (client) => client.Ping(), Duration.times(pingTimeout, 2)).pipe(
      Effect.raceFirst(
        Effect.sleep(Duration.subtract(pingTimeout, readTime)).pipe(
          Effect.zipRight(Effect.sleep(readTime)),
          Effect.zipRight(Effect.suspend(() => current.answeredAt > askedAt ? Effect.void : Effect.fail("silent")))
        )
      ),
      Effect.zipRight(Effect.sleep(pingInterval))
    )
  }).pipe(Effect.forever, Effect.ignore)

const learnNodes = (state: State, connection: NodeConnection): Effect.Effect<never> =>
  connection.call("Nodes", (client) => client.Nodes()).pipe(
    Effect.map((nodes) => {
      if (nodes.length > 0) state.learned = nodes.map((node) => node.address)
    }),
    Effect.ignore,
    Effect.zipRight(Effect.sleep(nodesInterval)),
    Effect.forever
  )

const candidates = (state: State): ReadonlyArray<string> => {
  const all = [...new Set([...state.learned, ...state.seeds])]
  const turned = all.map((_, index) => all[(index + state.offset) % all.length]!)
  const last = turned.filter((address) => address === state.lost)
  return [...turned.filter((address) => address !== state.lost), ...last].slice(0, candidatesMax)
}

const firstToAnswer = (state: State): Effect.Effect<NodeConnection, ClusterUnavailable, Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    let isTaken = false
    const take = (connection: NodeConnection) =>
      Effect.suspend(() => {
        // Two may answer at once: the second is closed, not forgotten.
        if (isTaken) return new ClusterUnavailable({ operation: "connect", reason: "another node was faster" })
        isTaken = true
        return Effect.succeed(connection)
      })
    const dial = Effect.fnUntraced(function*(address: string) {
      const attempt = yield* Scope.fork(scope, ExecutionStrategy.sequential)
      return yield* connect(address).pipe(
        Effect.tap((connection) => connection.call("Ping", (client) => client.Ping(), pingTimeout)),
        Effect.flatMap(take),
        Scope.extend(attempt),
        Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Scope.close(attempt, exit))
      )
    })
    let mayStart: Effect.Effect<unknown> = Effect.void
    const dials = candidates(state).map((address, index) => {
      const failed = Effect.unsafeMakeLatch(false)
      const start = mayStart
      mayStart = Effect.raceFirst(failed.await, Effect.sleep(Duration.times(stagger, index + 1)))
      return Effect.zipRight(start, dial(address)).pipe(Effect.tapError(() => failed.open))
    })
    return yield* Effect.raceAll(dials)
  }).pipe(Effect.tapError(() => Effect.sync(() => state.offset += candidatesMax)))
