/**
 * The worker inside a node: its own actors by direct calls, those of other nodes over the wire like any worker; so a
 * queue whose only partition lives on one node is worked on by all.
 */
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import type { Handlers } from "@orrery/core/Handlers"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { type NodeLink, NodeLinks } from "@orrery/core/WorkerProtocol"
import * as RemoteLinks from "@orrery/worker/RemoteLinks"
import * as Worker from "@orrery/worker/Worker"
import { Duration, Effect, Layer } from "effect"
import * as HubLink from "./HubLink.js"
import { NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Residents } from "./Residents.js"

/** Share of the time a node has to shut down in which its handlers may end by themselves. */
const graceShare = 0.5

const links = Layer.effect(
  NodeLinks,
  Effect.gen(function*() {
    const directory = yield* NodeDirectory
    const residents = yield* Residents
    const self = yield* NodeIdentity
    const { leaseMs } = yield* ClusterConfig
    // The directory tells of changes; nobody waits for the word of a link.
    const stale = yield* Effect.makeLatch(false)
    const own = HubLink.make(self.nodeId, residents.hub, leaseMs)
    const known = new Map<string, NodeLink>([[self.nodeId, own]])

    const current = (): ReadonlyArray<NodeLink> => {
      const live = directory.live()
      for (const id of known.keys()) {
        if (id !== self.nodeId && !live.some((node) => node.nodeId === id)) known.delete(id)
      }
      for (const node of live) {
        if (!known.has(node.nodeId)) known.set(node.nodeId, RemoteLinks.makeLink(node.nodeId, node.dataAddress, stale))
      }
      return [...known.values()]
    }
    return NodeLinks.of({
      watch: (changed) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            changed(current())
            return directory.onChange(() => changed(current()))
          }),
          (stop) => Effect.sync(stop)
        )
    })
  })
)

export const layer: Layer.Layer<
  never,
  never,
  Handlers | NodeConfig | ClusterConfig | NodeDirectory | NodeIdentity | Residents
> = Layer.unwrapEffect(
  Effect.gen(function*() {
    const { shutdownTimeoutMs, workerSlots } = yield* NodeConfig
    const self = yield* NodeIdentity
    if (workerSlots === 0) return Layer.empty
    return Worker.layer({
      slots: workerSlots,
      workerId: `node-${self.nodeId}`,
      shutdownGrace: Duration.millis(shutdownTimeoutMs * graceShare)
    }).pipe(Layer.provide(links))
  })
)
