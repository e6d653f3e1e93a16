/** What scenarios ask of the processes. */
import type { Supervised } from "@orrery/cli/Supervisor"
import { Effect } from "effect"
import { eventually } from "../patience.js"
import type { Scene } from "../Scenario.js"

/** Every one in turn. */
export const inTurn = <A>(some: ReadonlyArray<A>, at: number): A => some[at % some.length]!

/** Once the node has come back as another incarnation. */
export const reborn = (node: Supervised, before: string | undefined): Effect.Effect<void> =>
  Effect.asVoid(
    eventually(`${node.name} is back`, node.lastReady, (ready) => ready !== undefined && ready.nodeId !== before)
  )

export const nodeIdOf = (node: Supervised): Effect.Effect<string | undefined> =>
  Effect.map(node.lastReady, (ready) => ready?.nodeId)

export const nodeIdsOf = (scene: Scene): Effect.Effect<ReadonlyArray<string | undefined>> =>
  Effect.forEach(scene.cluster.nodes, nodeIdOf)

/** Queues that the node owns now. */
export const queuesOf = (scene: Scene, nodeId: string | undefined): Effect.Effect<ReadonlySet<string>> =>
  Effect.map(
    scene.query<{ queue: string }>("select queue from orrery.partitions where owner = $1", [nodeId]),
    (rows) => new Set(rows.map(({ queue }) => queue))
  )

/** A violation for each process that is not the one it was, when the effect has ended. */
export const allSurvive = <A, E, R>(scene: Scene, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const processes = [...scene.cluster.nodes, ...scene.cluster.workers]
    const before = yield* Effect.forEach(processes, ({ pid }) => pid)
    const result = yield* effect
    const after = yield* Effect.forEach(processes, ({ pid }) => pid)
    processes.forEach(({ name }, at) => {
      if (before[at] !== after[at]) scene.violate({ checker: "survival", what: `${name} did not survive it` })
    })
    return result
  })
