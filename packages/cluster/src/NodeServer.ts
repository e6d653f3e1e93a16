/** Serves the data plane of a node: clients, workers and other nodes, over TCP. */
import { NodeSocketServer } from "@effect/platform-node"
import { RpcServer } from "@effect/rpc"
import {
  decodeAttempts,
  decodeOutcomes,
  decodeRequests,
  encodeAttempts,
  encodeToWorker,
  type ToWorkerFrame
} from "@orrery/api/Frames"
import { serialization } from "@orrery/api/NodeConnection"
import { NodeRpcs, SessionUnknown } from "@orrery/api/NodeRpcs"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { Assignment, ToWorker } from "@orrery/core/WorkerProtocol"
import { Effect, Layer, Mailbox } from "effect"
import { Gateway } from "./Gateway.js"
import { NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Residents } from "./Residents.js"
import type { HubSession } from "./WorkerHub.js"

/** Messages to one worker that it has not taken yet. A worker that lets more pile up is cut off. */
const outboxMax = 20_000
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

const handlers = NodeRpcs.toLayer(
  Effect.gen(function*() {
    const gateway = yield* Gateway
    const residents = yield* Residents
    const directory = yield* NodeDirectory
    const self = yield* NodeIdentity
    const { leaseMs } = yield* ClusterConfig
    const sessions = new Map<number, { readonly session: HubSession; readonly end: () => void }>()
    let lastSession = 0

    const withSession = <A, E>(sessionId: number, use: (session: HubSession) => Effect.Effect<A, E>) =>
      Effect.suspend((): Effect.Effect<A, E | SessionUnknown> => {
        const found = sessions.get(sessionId)
        return found === undefined ? Effect.fail(new SessionUnknown({ sessionId })) : use(found.session)
      })

    return {
      Enqueue: ({ rows }) =>
        Effect.gen(function*() {
          const requests = yield* decodeRequests(rows)
          return { failures: yield* gateway.enqueue(requests) }
        }),
      Get: ({ id }) => gateway.get(id),
      List: ({ filter }) => gateway.list(filter),
      AwaitFinal: ({ id, waitMs }) => gateway.awaitFinal(id, waitMs),
      Cancel: ({ id }) => gateway.cancel(id),
      Nodes: () =>
        Effect.sync(() => directory.live().map((node) => ({ nodeId: node.nodeId, address: node.dataAddress }))),
      Ping: () => Effect.succeed(self.nodeId),

      Attach: (hello) =>
        Effect.gen(function*() {
          const outbox = yield* Mailbox.make<ToWorkerFrame>({ capacity: outboxMax, strategy: "dropping" })
          const sessionId = ++lastSession
          const end = () => void outbox.unsafeDone(undefined as never)
          outbox.unsafeOffer(encodeToWorker({ _tag: "attached", leaseMs, sessionId }))
          const deliver = gather((message) => {
            if (!outbox.unsafeOffer(encodeToWorker(message))) end()
          })
          const session = residents.hub.attach(hello, deliver, end)
          if (session === "full") {
            return yield* new ClusterUnavailable({
              operation: "attach",
              reason: "the node serves as many workers as it may"
            })
          }
          sessions.set(sessionId, { session, end })
          const stopWatching = directory.onChange(() => void outbox.unsafeOffer(encodeToWorker({ _tag: "nodes" })))
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => {
              stopWatching()
              sessions.delete(sessionId)
              session.lost()
            })
          )
          return outbox
        }),
      Report: ({ reports, sessionId }) =>
        withSession(
          sessionId,
          (session) => Effect.flatMap(decodeOutcomes(reports), (decoded) => session.report(decoded))
        ),
      Announce: ({ held, partitionId, sessionId }) =>
        withSession(sessionId, (session) =>
          Effect.flatMap(decodeAttempts(held), (attempts) => {
            const stale = session.announce(partitionId, attempts)
            return stale === undefined
              ? new ClusterUnavailable({ operation: "announce", reason: "the partition is not owned by this node" })
              : Effect.succeed(encodeAttempts(stale))
          })),
      SetCredit: ({ ahead, credit, sessionId }) =>
        withSession(sessionId, (session) => Effect.sync(() => session.setCredit(credit, ahead))),
      Heartbeat: ({ sessionId }) =>
        withSession(
          sessionId,
          (session) => session.heartbeat() ? Effect.void : Effect.fail(new SessionUnknown({ sessionId }))
        ),
      Goodbye: ({ sessionId }) =>
        withSession(sessionId, (session) =>
          Effect.sync(() => {
            session.goodbye()
            sessions.get(sessionId)?.end()
            sessions.delete(sessionId)
          })),

      ForwardEnqueue: ({ partition, rows }) =>
        Effect.gen(function*() {
          const requests = yield* decodeRequests(rows)
          return { failures: yield* gateway.owned.enqueue(partition, requests) }
        }),
      ForwardCancel: ({ id, partition }) => gateway.owned.cancel(partition, id),
      ForwardAwait: ({ id, partition, waitMs }) => gateway.owned.awaitFinal(partition, id, waitMs)
    }
  })
)

/** Listens as soon as it is built. */
export const layer = Layer.unwrapEffect(
  Effect.map(
    NodeIdentity,
    (self) =>
      RpcServer.layer(NodeRpcs, { disableTracing: true, disableFatalDefects: true, concurrency: callsMax }).pipe(
        Layer.provide(handlers),
        // Fresh: the shard manager uses the same layer value, and one build shares what has the same identity.
        Layer.provide(Layer.fresh(RpcServer.layerProtocolSocketServer)),
        Layer.provide(NodeSocketServer.layer({ host: self.host, port: self.dataPort, noDelay: true })),
        Layer.provide(serialization)
      )
  )
)
