/**
 * A connection to one live node of the cluster, replaced when it is lost.
 *
 * Dials the known nodes in a staggered race and keeps the first that answers. Knows the seeds for good and, once
 * connected, all live nodes. A node that has closed the connection is tried last; one that does not answer a ping
 * within `pingTimeout` is given up, so that a frozen node costs its callers seconds, not their whole time limit.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { Duration, Effect, ExecutionStrategy, Exit, Schedule, Scope } from "effect"
import { connect, type NodeConnection } from "./NodeConnection.js"

export interface LiveNode {
  /** The open connection; waits for one as long as it takes, so give it a time limit. */
  readonly connection: Effect.Effect<NodeConnection>
  /** The open connection, if there is one now. */
  readonly current: () => NodeConnection | undefined
  /** Tells that the node cannot do its work though it answers pings: after `strikesMax` in a row another is tried. */
  readonly strike: (connection: NodeConnection) => Effect.Effect<void>
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
/** Youngest connection that strikes can end: a cluster that is down as a whole is not dialled in a tight loop. */
const strikeAgeMsMin = 1_000

interface Current {
  readonly connection: NodeConnection
  /** Monotonic, ms. */
  readonly since: number
  /** Monotonic, ms: when a call was answered last. */
  answeredAt: number
  /** Opened when the node is given up. */
  readonly givenUp: Effect.Latch
  strikes: number
}

interface State {
  readonly seeds: ReadonlyArray<string>
  learned: ReadonlyArray<string>
  /** Tried last. */
  lost: string | undefined
  /** Moves on when a round finds nobody, so that more than `candidatesMax` nodes all have their turn. */
  offset: number
  current: Current | undefined
  /** Open while there is a current connection. */
  readonly ready: Effect.Latch
}

/** Connects in the background until the scope closes. Needs at least one seed, `host:port`. */
export const make = (seeds: ReadonlyArray<string>): Effect.Effect<LiveNode, never, Scope.Scope> =>
  Effect.gen(function*() {
    if (seeds.length === 0) return yield* Effect.dieMessage("nodes must name at least one node as host:port")
    const ready = yield* Effect.makeLatch(false)
    const state: State = { seeds, learned: [], lost: undefined, offset: 0, current: undefined, ready }
    yield* Effect.forkScoped(Effect.forever(keepOne(state)))

    const connection: Effect.Effect<NodeConnection> = Effect.flatMap(
      ready.await,
      () => state.current === undefined ? connection : Effect.succeed(state.current.connection)
    )
    return {
      connection,
      current: () => state.current?.connection,
      strike: (failed) =>
        Effect.suspend(() => {
          const current = state.current
          if (current?.connection !== failed || ++current.strikes < strikesMax) return Effect.void
          return performance.now() - current.since < strikeAgeMsMin ? Effect.void : current.givenUp.open
        }),
      praise: (answered) => {
        if (state.current?.connection !== answered) return
        state.current.strikes = 0
        state.current.answeredAt = performance.now()
      }
    }
  })

/** Finds a node, and ends when that node is lost. */
const keepOne = (state: State) =>
  Effect.gen(function*() {
    const connection = yield* firstToAnswer(state).pipe(Effect.retry(reconnectSchedule), Effect.orDie)
    const givenUp = yield* Effect.makeLatch(false)
    state.current = { connection, since: performance.now(), answeredAt: 0, givenUp, strikes: 0 }
    yield* state.ready.open
    yield* Effect.raceAll([connection.closed, givenUp.await, untilSilent(state.current), learnNodes(state, connection)])
    state.lost = connection.address
  }).pipe(
    Effect.ensuring(Effect.suspend(() => {
      state.current = undefined
      return state.ready.close
    })),
    // Only now the connection's scope ends: whoever sees its calls fail finds another one, or waits.
    Effect.scoped
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
