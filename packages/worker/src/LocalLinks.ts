/** `NodeLinks` of a fixed list: the node's own link for a worker inside it, or scripted ones in tests. */
import { type NodeLink, NodeLinks } from "@orrery/core/WorkerProtocol"
import { Effect, Layer } from "effect"

/** Lists these links once; they never change. */
export const layer = (links: ReadonlyArray<NodeLink>): Layer.Layer<NodeLinks> =>
  Layer.succeed(NodeLinks, NodeLinks.of({ watch: (changed) => Effect.sync(() => changed(links)) }))
