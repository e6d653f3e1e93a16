/** A worker's way to the node it lives in: direct calls, no serialization. */
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { NodeLink } from "@orrery/core/WorkerProtocol"
import { Deferred, Effect, Exit } from "effect"
import type { WorkerHub } from "./WorkerHub.js"

const notOwned = Effect.fail(
  new ClusterUnavailable({ operation: "announce", reason: "the partition is not owned by this node" })
)

export const make = (node: string, hub: Pick<WorkerHub, "attach">, leaseMs: number): NodeLink => ({
  node,
  attach: (hello, deliver) =>
    Effect.gen(function*() {
      const closed = yield* Deferred.make<void>()
      const session = hub.attach(hello, deliver, () => Deferred.unsafeDone(closed, Exit.void))
      if (session === "full") {
        return yield* new ClusterUnavailable({
          operation: "attach",
          reason: "the node serves as many workers as it may"
        })
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => session.goodbye()))
      return {
        leaseMs,
        gatherMs: 0,
        report: session.report,
        note: session.note,
        checkpoint: session.checkpoint,
        announce: (partitionId, held) =>
          Effect.suspend(() => {
            const stale = session.announce(partitionId, held)
            return stale === undefined ? notOwned : Effect.succeed(stale)
          }),
        setCredit: (credit, ahead, slots) => Effect.sync(() => session.setCredit(credit, ahead, true, slots)),
        heartbeat: Effect.suspend(() =>
          session.heartbeat()
            ? Effect.void
            : new ClusterUnavailable({ operation: "heartbeat", reason: "the session has ended" })
        ),
        closed: Deferred.await(closed)
      }
    })
})
