/** `NodeLinks` over the wire: every live node of a cluster, learned from any of them, each by a TCP connection. */
import { attach, report } from "@orrery/api/FrameCalls"
import {
  decodeAttempts,
  decodeToWorker,
  encodeAttempts,
  encodeOutcomes,
  hasDelay,
  outcomeDelays,
  type UnknownFrameVersion,
  withoutDelay
} from "@orrery/api/Frames"
import * as LiveNode from "@orrery/api/LiveNode"
import { connect, isUnknownCall, type NodeConnection } from "@orrery/api/NodeConnection"
import { type NodeAddress, SessionUnknown } from "@orrery/api/NodeRpcs"
import * as RemoteLimits from "@orrery/api/RemoteLimits"
import { ClusterUnavailable } from "@orrery/core/Errors"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import { type NodeLink, NodeLinks, type OutcomeReport, type WorkerSession } from "@orrery/core/WorkerProtocol"
import { Deferred, Duration, Effect, Either, Exit, Layer } from "effect"

export interface RemoteLinksOptions {
  /** Some nodes of the cluster, `host:port`; the others are learned. */
  readonly nodes: ReadonlyArray<string>
}

/** How often the list of live nodes is read. A lost connection, or word of a change, has it read at once. */
const refreshInterval = Duration.seconds(1)
/** Pause after a hint or a failed reading: losses come in bursts, and the cluster needs a moment to notice. */
const refreshPause = Duration.millis(100)
const listTimeout = Duration.seconds(2)
/** Time until a node has confirmed an attachment. */
const attachTimeout = Duration.seconds(5)
/** A message costs both sides some tenth of a millisecond: outcomes wait that long for company (decisions/0006, 0008). */
const gatherMs = 2
/** How long a goodbye may hold up a shutdown. */
const goodbyeTimeout = Duration.seconds(1)

const make = (options: RemoteLinksOptions) =>
  Effect.gen(function*() {
    const live = yield* LiveNode.make(options.nodes)
    yield* LimitKeeper.keptBy(RemoteLimits.make(live))
    const watchers = new Set<(links: ReadonlyArray<NodeLink>) => void>()
    const stale = yield* Effect.makeLatch(false)
    const links = new Map<string, NodeLink>()

    const apply = (nodes: ReadonlyArray<NodeAddress>): void => {
      const names = new Map(nodes.map((node) => [nameOf(node), node]))
      let isChanged = false
      for (const name of links.keys()) {
        if (!names.has(name)) isChanged = links.delete(name)
      }
      for (const [name, node] of names) {
        if (links.has(name)) continue
        links.set(name, makeLink(name, node.address, stale))
        isChanged = true
      }
      if (isChanged) { for (const changed of watchers) changed([...links.values()]) }
    }
    const refresh = Effect.suspend(() => {
      stale.unsafeClose()
      return live.connection
    }).pipe(
      Effect.timeout(listTimeout),
      Effect.flatMap((connection) => connection.call("Nodes", (client) => client.Nodes(), listTimeout)),
      Effect.map(apply),
      Effect.catchAll(() => stale.open)
    )
    const afterHint = Effect.zipRight(stale.await, Effect.sleep(refreshPause))
    const wait = Effect.raceFirst(afterHint, Effect.sleep(refreshInterval))
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(refresh, wait)))

    return NodeLinks.of({
      watch: (changed) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            watchers.add(changed)
            changed([...links.values()])
          }),
          () => Effect.sync(() => watchers.delete(changed))
        )
    })
  })

/** A node that restarts at the same address is another one: its id differs. */
const nameOf = (node: NodeAddress): string => `${node.address}#${node.nodeId}`

/** The link to one node. `stale` is opened when the list of nodes may be of the past. */
export const makeLink = (name: string, address: string, stale: Effect.Latch): NodeLink => ({
  node: name,
  attach: (hello, deliver) =>
    Effect.gen(function*() {
      const connection = yield* connect(address)
      const closed = yield* Deferred.make<void>()
      connection.onPush((frame) => {
        const message = decodeToWorker(frame)
        // Of a node of another release: without its messages the session is worth nothing.
        if (Either.isLeft(message) || message.right._tag === "ended") Deferred.unsafeDone(closed, Exit.void)
        else if (message.right._tag === "nodes") stale.unsafeOpen()
        else deliver(message.right)
      })
      yield* connection.closed.pipe(
        Effect.zipRight(Effect.sync(() => Deferred.unsafeDone(closed, Exit.void))),
        Effect.forkScoped
      )
      yield* Deferred.await(closed).pipe(Effect.ensuring(stale.open), Effect.forkScoped)
      const args = [hello.workerId, hello.tasks, hello.credit] as const
      const { leaseMs, sessionId } = yield* connection.request(attach, args, attachTimeout)
      yield* Effect.addFinalizer(() =>
        connection.isOpen()
          ? Effect.ignore(connection.call("Goodbye", (client) => client.Goodbye({ sessionId }), goodbyeTimeout))
          : Effect.void
      )
      return sessionOf(connection, { leaseMs, sessionId, closed })
    })
})

const sessionOf = (connection: NodeConnection, session: {
  readonly leaseMs: number
  readonly sessionId: number
  readonly closed: Deferred.Deferred<void>
}): WorkerSession => {
  const { closed, leaseMs, sessionId } = session
  // A node of an earlier release does not: what attempts tell is then lost, as there it always was.
  let knowsNotes = true
  const ask = <A>(
    operation: string,
    call: Effect.Effect<A, SessionUnknown | UnknownFrameVersion | ClusterUnavailable>
  ): Effect.Effect<A, ClusterUnavailable> =>
    Effect.catchAll(call, (error) => {
      if (error instanceof ClusterUnavailable) return Effect.fail(error)
      const unavailable = new ClusterUnavailable({ operation, reason: error.message })
      return error instanceof SessionUnknown
        ? Effect.zipRight(Deferred.succeed(closed, undefined), Effect.fail(unavailable))
        : Effect.fail(unavailable)
    })
  const send = (reports: ReadonlyArray<OutcomeReport>) =>
    Effect.suspend(() => ask("report", connection.request(report, [sessionId, encodeOutcomes(reports)])))
  const knowsDelays = delaysKnownBy(connection)
  return {
    leaseMs,
    gatherMs,
    report: (reports) =>
      reports.some(hasDelay)
        ? Effect.flatMap(knowsDelays, (known) => send(known ? reports : reports.map(withoutDelay)))
        : send(reports),
    note: (reports) =>
      Effect.suspend(() => {
        const call = connection.call("Note", (client) => client.Note({ sessionId, reports }))
        return knowsNotes ? ask("note", call) : Effect.succeed(reports.map(() => "accepted" as const))
      }).pipe(Effect.catchIf(isUnknownCall, () => {
        knowsNotes = false
        return Effect.succeed(reports.map(() => "accepted" as const))
      })),
    checkpoint: (attempt) =>
      Effect.suspend(() => {
        const payload = { sessionId, attempt: encodeAttempts([attempt]) }
        const call = connection.call("Checkpoint", (client) => client.Checkpoint(payload))
        return knowsNotes ? ask("checkpoint", call) : Effect.succeed(null)
      }).pipe(Effect.catchIf(isUnknownCall, () => {
        knowsNotes = false
        return Effect.succeed(null)
      })),
    announce: (partitionId, held) =>
      Effect.suspend(() => {
        const payload = { sessionId, partitionId, held: encodeAttempts(held) }
        const call = connection.call("Announce", (client) => client.Announce(payload))
        return ask("announce", Effect.flatMap(call, decodeAttempts))
      }),
    setCredit: (credit, ahead, slots) =>
      ask(
        "setCredit",
        connection.call("SetCredit", (client) => client.SetCredit({ sessionId, credit, ahead, trace: true, slots }))
      ),
    heartbeat: ask("heartbeat", connection.call("Heartbeat", (client) => client.Heartbeat({ sessionId }))),
    closed: Deferred.await(closed)
  }
}

/** Asked when it first matters, once per session. A node of an earlier release knows neither delays nor the question. */
const delaysKnownBy = (connection: NodeConnection): Effect.Effect<boolean, ClusterUnavailable> => {
  let known: boolean | undefined
  const question = connection.call("Features", (client) => client.Features()).pipe(
    Effect.map((features) => features.includes(outcomeDelays)),
    Effect.catchIf(isUnknownCall, () => Effect.succeed(false)),
    Effect.tap((answer) => Effect.sync(() => known = answer))
  )
  return Effect.suspend(() => known === undefined ? question : Effect.succeed(known))
}

/** Learns the nodes in the background, and asks them for the limits of handlers (`LimitKeeper`). Needs nothing. */
export const layer = (options: RemoteLinksOptions): Layer.Layer<NodeLinks> => Layer.scoped(NodeLinks, make(options))
