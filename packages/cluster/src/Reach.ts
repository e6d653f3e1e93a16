/**
 * What nodes tell each other about each other: whether one reaches another, and that the members have changed. All of it is
 * a help: who is not told finds out by itself, later.
 */
import type { NodeConnection } from "@orrery/api/NodeConnection"
import { departsMax } from "@orrery/api/NodeRpcs"
import { NodeConfig } from "@orrery/core/NodeConfig"
import type { PartitionName } from "@orrery/core/PartitionStore"
import { Chunk, Context, Effect, Exit, Layer } from "effect"
import { type DirectoryEntry, NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Peers } from "./Peers.js"

/**
 * What a node says of another. `gone`: it could not be asked, for nobody listens at its address. `silent`: it could not be
 * asked, or did not answer.
 */
export type Word = "reaches" | "does not reach" | "gone" | "silent"

export class Reach extends Context.Tag("@orrery/cluster/Reach")<Reach, {
  /** Whether the data plane of that node answers this one, asked now: within twice `peerPingTimeoutMs`. */
  readonly reaches: (nodeId: string) => Effect.Effect<boolean>
  /** Asks at most `askedMax` of the nodes, at once, whether they reach that one: within three times `peerPingTimeoutMs`. */
  readonly ask: (nodes: ReadonlyArray<DirectoryEntry>, nodeId: string) => Effect.Effect<ReadonlyArray<Word>>
  /** Live nodes but this one. */
  readonly others: () => ReadonlyArray<DirectoryEntry>
  /** Whether any of the others, of whom at most `askedMax` are asked, says that it can do its work: within `tellWithin`. */
  readonly othersReady: Effect.Effect<boolean>
  /** Has the others look at once who is a member, instead of at their next poll. */
  readonly membersChanged: Effect.Effect<void>
  /** Tells the others that what happens here may not be heard of by hints. */
  readonly hintsUnheard: Effect.Effect<void>
  /** Tells the others that this node stops, and that it serves these partitions until they have another owner. */
  readonly departs: (partitions: ReadonlyArray<PartitionName>) => Effect.Effect<void>
}>() {}

const askedMax = 8
const tellWithin = "500 millis"

const make = Effect.gen(function*() {
  const { peerPingTimeoutMs } = yield* NodeConfig
  const directory = yield* NodeDirectory
  const peers = yield* Peers
  const self = yield* NodeIdentity
  const others = () => directory.live().filter((each) => each.nodeId !== self.nodeId)

  const reaches = (nodeId: string) =>
    directory.find(nodeId).pipe(
      Effect.flatMap((entry) =>
        entry === undefined ? Effect.succeed(false) : Effect.scoped(
          peers.connection(entry.dataAddress).pipe(
            Effect.flatMap((connection) => connection.call("Ping", (client) => client.Ping(), peerPingTimeoutMs)),
            Effect.map((answer) => answer === nodeId)
          )
        )
      ),
      Effect.timeout(2 * peerPingTimeoutMs),
      Effect.orElseSucceed(() => false)
    )

  const askOne = (node: DirectoryEntry, nodeId: string) =>
    Effect.gen(function*() {
      const began = performance.now()
      const opened = yield* peers.connection(node.dataAddress).pipe(Effect.timeout(peerPingTimeoutMs), Effect.exit)
      if (Exit.isFailure(opened)) return performance.now() - began < peerPingTimeoutMs ? "gone" : "silent"
      const answer = yield* opened.value.call("Reaches", (client) => client.Reaches({ nodeId }), 2 * peerPingTimeoutMs)
      return answer ? "reaches" : "does not reach"
    }).pipe(Effect.scoped, Effect.catchAllCause(() => Effect.succeed("silent" as const)))

  const tell = <A, E>(say: (connection: NodeConnection) => Effect.Effect<A, E>): Effect.Effect<void> =>
    Effect.suspend(() =>
      Effect.forEach(others(), (node) =>
        Effect.flatMap(peers.connection(node.dataAddress), say).pipe(
          Effect.scoped,
          Effect.timeout(tellWithin),
          Effect.ignore
        ), { concurrency: 16, discard: true })
    )

  const isReady = (node: DirectoryEntry) =>
    Effect.flatMap(
      peers.connection(node.dataAddress),
      (connection) => connection.call("Health", (client) => client.Health(), tellWithin)
    ).pipe(
      Effect.map(({ notReady }) => notReady.length === 0),
      Effect.scoped,
      Effect.timeout(tellWithin),
      Effect.orElseSucceed(() => false)
    )

  return Reach.of({
    reaches,
    others,
    othersReady: Effect.suspend(() =>
      Effect.map(
        Effect.forEach(others().slice(0, askedMax), isReady, { concurrency: askedMax }),
        (answers) => answers.includes(true)
      )
    ),
    ask: (nodes, nodeId) =>
      Effect.forEach(nodes.slice(0, askedMax), (node) => askOne(node, nodeId), { concurrency: askedMax }),
    membersChanged: tell((connection) =>
      connection.call("MembersChanged", (client) => client.MembersChanged(), tellWithin)
    ),
    hintsUnheard: tell((connection) => connection.call("HintsUnheard", (client) => client.HintsUnheard(), tellWithin)),
    departs: (partitions) =>
      tell((connection) =>
        Effect.forEach(
          Chunk.chunksOf(Chunk.unsafeFromArray(partitions), departsMax),
          (some) =>
            connection.call(
              "Departs",
              (client) => client.Departs({ nodeId: self.nodeId, partitions: [...some] }),
              tellWithin
            )
        )
      )
  })
})

export const layer = Layer.effect(Reach, make)
