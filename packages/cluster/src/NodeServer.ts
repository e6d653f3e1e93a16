/** Serves the data plane of a node: clients, workers and other nodes, over TCP. */
import { RpcServer } from "@effect/rpc"
import {
  decodeAttempts,
  decodeOutcomes,
  decodeRequests,
  encodeAttempts,
  encodeToWorker,
  outcomeDelays
} from "@orrery/api/Frames"
import type { Caller, FrameHandlers } from "@orrery/api/NodeListener"
import * as NodeListener from "@orrery/api/NodeListener"
import { leavingMsMax, NodeRpcs, SessionUnknown } from "@orrery/api/NodeRpcs"
import * as RpcBounds from "@orrery/api/RpcBounds"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { ClusterUnavailable } from "@orrery/core/Errors"
import * as LimitAsk from "@orrery/core/LimitAsk"
import { SharedLimits } from "@orrery/core/LimitStore"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Queues } from "@orrery/core/Queues"
import { RunHistory } from "@orrery/core/RunHistory"
import { Schedules } from "@orrery/core/schedule/Schedules"
import type { Assignment, ToWorker } from "@orrery/core/WorkerProtocol"
import { Signals } from "@orrery/core/Signals"
import { Effect, Layer, Option } from "effect"
import { ClusterLimits } from "./ClusterLimits.js"
import { Gateway } from "./Gateway.js"
import { InboxDrain } from "./InboxDrain.js"
import { LockStorage } from "./LockStorage.js"
import { NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import * as OwnedCalls from "./OwnedCalls.js"
import { Reach } from "./Reach.js"
import { Readiness } from "./Readiness.js"
import { Residents } from "./Residents.js"
import * as SettingsCheck from "./SettingsCheck.js"
import { StepAside } from "./StepAside.js"
import type { HubSession } from "./WorkerHub.js"

/** Keeps a message below the 32 MiB of a connection at the largest payload of 256 KiB. */
const assignmentsPerMessage = 64
/** Calls under way on the whole node. Beyond it they wait in their sockets. */
const callsMax = 10_000

/** Assignments of one turn of the event loop, by any of the actors, go as one message. The order of messages is kept. */
const gather = (deliver: (message: ToWorker) => void) => {
  let assignments: Array<Assignment> = []
  const flush = (): void => {
    const all = assignments
    assignments = []
    for (let at = 0; at < all.length; at += assignmentsPerMessage) {
      deliver({ _tag: "assign", assignments: all.slice(at, at + assignmentsPerMessage) })
    }
  }
  return (message: ToWorker): void => {
    if (message._tag === "assign") {
      if (assignments.length === 0) setImmediate(flush)
      assignments.push(...message.assignments)
    } else {
      flush()
      deliver(message)
    }
  }
}

interface Session {
  readonly hub: HubSession
  readonly end: () => void
}

/** The sessions of workers that are attached over the wire. */
const makeSessions = () => {
  const sessions = new Map<number, Session>()
  let last = 0
  return {
    add: (session: Session): number => {
      sessions.set(++last, session)
      return last
    },
    delete: (sessionId: number) => sessions.delete(sessionId),
    get: (sessionId: number) => sessions.get(sessionId),
    use: <A, E>(sessionId: number, use: (session: HubSession) => Effect.Effect<A, E>) =>
      Effect.suspend((): Effect.Effect<A, E | SessionUnknown> => {
        const found = sessions.get(sessionId)
        return found === undefined ? Effect.fail(new SessionUnknown({ sessionId })) : use(found.hub)
      })
  }
}
type Sessions = ReturnType<typeof makeSessions>

const frameHandlers = (sessions: Sessions) =>
  Effect.gen(function*() {
    const gateway = yield* Gateway
    const residents = yield* Residents
    const directory = yield* NodeDirectory
    const { leaseMs } = yield* ClusterConfig
    const attached = new WeakSet<Caller>()
    const handlers: FrameHandlers = {
      enqueue: (rows) => Effect.flatMap(decodeRequests(rows), (requests) => gateway.enqueue(requests)),
      forwardEnqueue: (partition, rows) =>
        Effect.flatMap(
          decodeRequests(rows),
          (requests) => gateway.owned.enqueue(partition, requests)
        ),
      attach: (hello, caller) =>
        Effect.suspend(() => {
          if (attached.has(caller)) {
            return new ClusterUnavailable({ operation: "attach", reason: "this connection has a session already" })
          }
          attached.add(caller)
          let isOver = false
          const end = () => {
            if (!isOver) caller.push(encodeToWorker({ _tag: "ended" }))
            isOver = true
          }
          const deliver = gather((message) => {
            if (!isOver) caller.push(encodeToWorker(message))
          })
          const hub = residents.hub.attach(hello, deliver, end)
          if (hub === "full") {
            return new ClusterUnavailable({
              operation: "attach",
              reason: "the node serves as many workers as it may"
            })
          }
          const sessionId = sessions.add({ hub, end })
          const stopWatching = directory.onChange(() => caller.push(encodeToWorker({ _tag: "nodes" })))
          caller.onClosed(() => {
            isOver = true
            stopWatching()
            sessions.delete(sessionId)
            hub.lost()
          })
          return Effect.succeed({ leaseMs, sessionId })
        }),
      report: (sessionId, reports) =>
        sessions.use(
          sessionId,
          (session) => Effect.flatMap(decodeOutcomes(reports), (decoded) => session.report(decoded))
        )
    }
    return handlers
  })

const rpcHandlers = (sessions: Sessions) =>
  NodeRpcs.toLayer(
    Effect.gen(function*() {
      const gateway = yield* Gateway
      const directory = yield* NodeDirectory
      const locks = yield* LockStorage
      const self = yield* NodeIdentity
      const readiness = yield* Readiness
      const reach = yield* Reach
      const aside = yield* StepAside
      const signals = yield* Signals
      const schedules = yield* Schedules
      const inbox = yield* InboxDrain
      const queues = yield* Queues
      const residents = yield* Residents
      const history = yield* RunHistory
      const limits = (yield* SharedLimits) ?? (yield* ClusterLimits)
      return {
        Get: ({ id }) => gateway.get(id),
        List: ({ filter }) => gateway.list(filter),
        AwaitFinal: ({ id, waitMs }) => gateway.awaitFinal(id, waitMs),
        Cancel: ({ id }) => gateway.cancel(id),
        Explain: ({ id }) => gateway.explain(id),
        Redrive: ({ id, payload }) => gateway.redrive(id, payload),
        Edit: ({ edit, id }) => gateway.edit(id, edit),
        DeleteFinal: ({ ids }) => OwnedCalls.deleteFinal(history, ids),
        Progress: ({ id }) => gateway.progress(id),
        RunChanges: ({ after, id, waitMs }) => gateway.changes(id, after, waitMs),
        QueueChanges: ({ after, namespace, queue, waitMs }) =>
          gateway.queueChanges({ namespace, queue }, after, waitMs),
        Nodes: () =>
          Effect.sync(() => directory.live().map((node) => ({ nodeId: node.nodeId, address: node.dataAddress }))),
        Ping: () =>
          Effect.sync(() => {
            locks.lookIfAlone()
            return self.nodeId
          }),
        Leaving: () => Effect.map(Effect.timeoutOption(aside.betterElsewhere, leavingMsMax), Option.isSome),
        Health: () => Effect.sync(readiness.health),
        AskLimit: ({ ask }) => LimitAsk.answer(limits, ask),
        Reaches: ({ nodeId }) => reach.reaches(nodeId),
        MembersChanged: () => Effect.sync(locks.look),
        HintsUnheard: () => Effect.sync(signals.doubt),
        Departs: ({ nodeId, partitions }) => Effect.sync(() => void gateway.departs(nodeId, partitions)),
        Nudge: ({ forwarded, partitions }) => Effect.sync(() => inbox.nudge(partitions, forwarded)),

        ScheduleCall: ({ call }) => schedules.call(call),
        ScheduleGet: ({ id }) => schedules.get(id),
        ScheduleList: ({ filter }) => schedules.list(filter),
        ScheduleTicks: ({ id, limit }) => schedules.ticks(id, limit),

        Features: () => Effect.succeed([outcomeDelays]),
        QueueCall: ({ call }) => queues.call(call),
        QueueGet: (name) => queues.get(name),
        QueueList: ({ filter }) => queues.list(filter),
        QueueSettingsChanged: ({ record }) => Effect.sync(() => SettingsCheck.apply(residents.list(), record)),

        Announce: ({ held, partitionId, sessionId }) =>
          sessions.use(sessionId, (session) =>
            Effect.flatMap(decodeAttempts(held), (attempts) => {
              const stale = session.announce(partitionId, attempts)
              return stale === undefined
                ? new ClusterUnavailable({ operation: "announce", reason: "the partition is not owned by this node" })
                : Effect.succeed(encodeAttempts(stale))
            })),
        SetCredit: ({ ahead, credit, sessionId, slots, trace }) =>
          sessions.use(sessionId, (session) => Effect.sync(() => session.setCredit(credit, ahead, trace, slots))),
        Note: ({ reports, sessionId }) => sessions.use(sessionId, (session) => session.note(reports)),
        Checkpoint: ({ attempt, sessionId }) =>
          sessions.use(sessionId, (session) =>
            Effect.flatMap(decodeAttempts(attempt), ([ref]) =>
              ref === undefined ? Effect.succeed(null) : session.checkpoint(ref))),
        Heartbeat: ({ sessionId }) =>
          sessions.use(
            sessionId,
            (session) =>
              session.heartbeat() ? Effect.void : Effect.fail(new SessionUnknown({ sessionId }))
          ),
        Goodbye: ({ sessionId }) =>
          sessions.use(sessionId, (session) =>
            Effect.sync(() => {
              session.goodbye()
              sessions.get(sessionId)?.end()
              sessions.delete(sessionId)
            })),

        ForwardRedrive: ({ id, partition, payload }) => gateway.owned.redrive(partition, id, payload),
        ForwardCancel: ({ id, partition }) => gateway.owned.cancel(partition, id),
        ForwardEdit: ({ edit, id, partition }) => gateway.owned.edit(partition, id, edit),
        ForwardExplain: ({ id, partition }) => gateway.owned.explain(partition, id),
        ForwardAwait: ({ id, partition, waitMs }) => gateway.owned.awaitFinal(partition, id, waitMs)
      }
    })
  )

/** Listens as soon as it is built. */
export const layer = Layer.unwrapEffect(
  Effect.gen(function*() {
    const { dataPort: port, host } = yield* NodeIdentity
    const { connectionsMax } = yield* NodeConfig
    const sessions = makeSessions()
    return RpcServer.layer(NodeRpcs, { disableTracing: true, disableFatalDefects: true, concurrency: callsMax }).pipe(
      Layer.provide(rpcHandlers(sessions)),
      // Fresh: the shard manager uses the same layer value, and one build shares what has the same identity.
      Layer.provide(Layer.fresh(RpcServer.layerProtocolSocketServer)),
      Layer.provide(NodeListener.layer({ host, port, guard: { connectionsMax } }, yield* frameHandlers(sessions))),
      Layer.provide(RpcBounds.layer)
    )
  })
)
