/** Death at named places around every commit. */
import * as Failpoint from "@orrery/core/Failpoint"
import { Effect, Option, Stream } from "effect"
import { steps } from "../chaosTasks.js"
import type { Scenario, Scene } from "../Scenario.js"
import { inTurn } from "./processes.js"

const variable = "ORRERY_FAILPOINT"
/** The how-manieth time it comes to the place, at most. A node that joins takes few queues over. */
const nthMax = 8
const rareNthMax = 2
const isRare = /^(?:take-over|requeue)\./
/** Attempts go back to ready when a worker dies in the middle of them. */
const needsDeaths = /^requeue\./
const deathsEvery = "3 seconds"
/** A node that joins takes over queues and is at each of the places soon; on a busy machine its start alone takes 10 s. */
const reachedWithin = "60 seconds"
/** Held by the workers that die, of every queue, so that there is something to put back in line, ms. */
const heldMs = 1_500
/** Places in a worker. */
const inWorker = /^report\./

/** A process of its own joins, dies at the place, comes back without the failpoint, and leaves. */
const visit = (scene: Scene, place: string, n: number) =>
  Effect.scoped(Effect.gen(function*() {
    const firstEnv = { [variable]: place }
    const child = inWorker.test(place)
      ? yield* scene.cluster.launchWorker(`worker-crash-${n}`, firstEnv)
      : yield* scene.cluster.launchNode(yield* scene.newPlace(`node-crash-${n}`), firstEnv)
    if (needsDeaths.test(place)) {
      yield* Effect.forkScoped(workersDie(scene))
      yield* Effect.forkScoped(keepBusy(scene))
    }
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

const keepBusy = (scene: Scene): Effect.Effect<never> =>
  Effect.forEach(steps, (task) => Effect.ignore(task.enqueue({ ms: heldMs, failures: 0 })), {
    concurrency: steps.length,
    discard: true
  }).pipe(Effect.provide(scene.client), Effect.delay(heldMs / 2), Effect.forever)

const workersDie = (scene: Scene): Effect.Effect<never> =>
  Effect.forEach(scene.cluster.workers, (worker) => Effect.delay(worker.kill("SIGKILL"), deathsEvery)).pipe(
    Effect.forever
  )

/** Its load has no transactions of applications. */
const names = Failpoint.names.filter((name) => !Failpoint.isOfTransactions(name))

export const crashPoints: Scenario = {
  name: "crash-points",
  catalogue: "T26",
  what: "a node or worker dies at each named place before and after a commit",
  times: names.length,
  quickTimes: names.length,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const name = inTurn(names, n)
        const place = `${name}@${scene.random.integer(1, isRare.test(name) ? rareNthMax : nthMax)}`
        yield* scene.event(`death at ${place}`, { inject: visit(scene, place, n) })
      }
    })
}
