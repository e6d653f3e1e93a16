/** Death at named places around every commit. */
import * as Failpoint from "@orrery/core/Failpoint"
import { Effect, Option, Stream } from "effect"
import type { Scenario, Scene } from "../Scenario.js"
import { inTurn } from "./processes.js"

const variable = "ORRERY_FAILPOINT"
/** The how-manieth time it comes to the place. */
const nthMax = 20
/** A node that joins takes over queues and is at each of the places soon. */
const reachedWithin = "30 seconds"
/** Places in a worker. */
const inWorker = /^report\./

/** A process of its own joins, dies at the place, comes back without the failpoint, and leaves. */
const visit = (scene: Scene, place: string, n: number) =>
  Effect.scoped(Effect.gen(function*() {
    const firstEnv = { [variable]: place }
    const child = inWorker.test(place)
      ? yield* scene.cluster.launchWorker(`worker-crash-${n}`, firstEnv)
      : yield* scene.cluster.launchNode(yield* scene.newPlace(`node-crash-${n}`), firstEnv)
    const died = child.events.pipe(
      Stream.filter((event) => event._tag === "exited"),
      Stream.take(1),
      Stream.runDrain
    )
    const inTime = yield* Effect.timeoutOption(died, reachedWithin)
    if (Option.isNone(inTime)) scene.note(place, "not reached")
    else yield* Effect.ignore(child.ready)
    yield* child.stop
  }))

export const crashPoints: Scenario = {
  name: "crash-points",
  catalogue: "T26",
  what: "a node or worker dies at each named place before and after a commit",
  times: Failpoint.names.length,
  quickTimes: Failpoint.names.length,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const place = `${inTurn(Failpoint.names, n)}@${scene.random.between(1, nthMax)}`
        yield* scene.event(`death at ${place}`, { inject: visit(scene, place, n) })
      }
    })
}
