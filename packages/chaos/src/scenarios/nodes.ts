/** What happens to node processes: death, freezes, blocked event loops, drains. */
import type { Supervised } from "@orrery/cli/Supervisor"
import { Effect } from "effect"
import { eventually } from "../patience.js"
import type { Scenario, Scene } from "../Scenario.js"

/** Every node in turn. */
export const inTurn = <A>(some: ReadonlyArray<A>, at: number): A => some[at % some.length]!

/** Once the node has come back as another incarnation. */
export const reborn = (node: Supervised, before: string | undefined): Effect.Effect<void> =>
  Effect.asVoid(
    eventually(`${node.name} is back`, node.lastReady, (ready) => ready !== undefined && ready.nodeId !== before)
  )

export const nodeIdOf = (node: Supervised): Effect.Effect<string | undefined> =>
  Effect.map(node.lastReady, (ready) => ready?.nodeId)

const kills = (scene: Scene, signal: NodeJS.Signals) =>
  Effect.gen(function*() {
    for (let n = 0; n < scene.times; n++) {
      const victim = inTurn(scene.cluster.nodes, n)
      const before = yield* nodeIdOf(victim)
      yield* scene.event(`${signal} of ${victim.name}`, { inject: victim.kill(signal) })
      yield* reborn(victim, before)
    }
  })

export const killNode: Scenario = {
  name: "kill-node",
  catalogue: "T01",
  what: "SIGKILL of one node after the other, under load",
  times: 6,
  quickTimes: 2,
  play: (scene) => kills(scene, "SIGKILL")
}
