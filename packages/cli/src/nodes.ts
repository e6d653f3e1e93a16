/** `orrery nodes`: which nodes there are, and whether they can do their work. */
import { Command } from "@effect/cli"
import { connect, type NodeConnection } from "@orrery/api/NodeConnection"
import type { NodeAddress, NodeHealth } from "@orrery/api/NodeRpcs"
import { Console, Data, Effect } from "effect"
import * as Client from "./client.js"
import { exitCode } from "./ExitCode.js"
import * as options from "./options.js"

/** Of one node. One that is frozen holds the others up no longer. */
const answerWithin = "2 seconds"
const nodesAtOnce = 32

class NotReady extends Data.TaggedError("NotReady")<{ readonly nodes: number }> {
  readonly exitCode = exitCode.unavailable
  override get message() {
    return `${this.nodes} nodes are not ready`
  }
}

interface Asked extends NodeAddress {
  readonly health: NodeHealth | { readonly notReady: ReadonlyArray<string> }
}

const at = <A, E>(address: string, ask: (node: NodeConnection) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(connect(address, { openTimeout: answerWithin }), ask))

/** The members as any node of those known tells them. */
const members = (addresses: ReadonlyArray<string>) =>
  Effect.firstSuccessOf(
    addresses.map((address) => at(address, (node) => node.call("Nodes", (client) => client.Nodes(), answerWithin)))
  )

const ask = (node: NodeAddress): Effect.Effect<Asked> =>
  at(node.address, (each) => each.call("Health", (client) => client.Health(), answerWithin)).pipe(
    Effect.catchAll((error) => Effect.succeed({ notReady: [error.message] })),
    Effect.map((health) => ({ ...node, health }))
  )

const lineOf = ({ address, health, nodeId }: Asked): string => {
  const work = "partitions" in health
    ? `${health.partitions} partitions  ${health.workers} workers  ${health.heapPercent} % heap  `
      + `locks ${health.locksConfirmedMsAgo} ms ago  ${health.unaccounted} unaccounted`
    : ""
  const signals = "signals" in health && health.signals !== null
    ? `${health.signals.kind} ${health.signals.isUp ? "connected" : `away: ${health.signals.detail}`}`
    : ""
  const ends = "ends" in health && health.ends !== null
    ? `ends ${health.ends.hits} found, ${health.ends.misses} not, ${health.ends.refused} not believed`
    : ""
  const state = health.notReady.length === 0 ? "ready" : `not ready: ${health.notReady.join("; ")}`
  return [nodeId, address, state, work, signals, ends].filter((part) => part !== "").join("  ")
}

export const command = Command.make(
  "nodes",
  { nodes: options.nodes, json: options.json },
  ({ json, nodes }) =>
    Effect.gen(function*() {
      const found = yield* members(yield* Client.addresses(nodes))
      const asked = yield* Effect.forEach(found, ask, { concurrency: nodesAtOnce })
      yield* Effect.forEach(asked, (node) => Console.log(json ? JSON.stringify(node) : lineOf(node)), {
        discard: true
      })
      const failing = asked.filter(({ health }) => health.notReady.length > 0).length
      if (failing > 0) return yield* new NotReady({ nodes: failing })
    })
).pipe(
  Command.withDescription(
    "Ask every node whether it can do its work, and if not, why. Code 69 when one is not ready."
  )
)
