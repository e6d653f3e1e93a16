/** What operators do: rolling restarts, nodes that come and go, two of the same name. */
import { Effect, Option } from "effect"
import { newer } from "../chaosTasks.js"
import { eventually } from "../patience.js"
import type { Scenario, Scene } from "../Scenario.js"
import { inTurn, nodeIdOf, nodeIdsOf, queuesOf, reborn } from "./processes.js"

const newerRuns = 50

export const rollingRestart: Scenario = {
  name: "rolling-restart",
  catalogue: "T24, T25",
  what: "all nodes and workers restarted in turn, with runs of a task that only later workers know",
  times: 1,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      const ended = scene.query<{ state: number }>("select state from orrery.run_history where task = $1", [newer.name])
      yield* newer.enqueueMany(Array.from({ length: newerRuns }, () => ({ ms: 5 }))).pipe(Effect.provide(scene.client))
      for (let round = 0; round < scene.times; round++) {
        for (const child of [...scene.cluster.nodes, ...scene.cluster.workers]) {
          const before = yield* nodeIdOf(child)
          yield* scene.event(`SIGTERM of ${child.name}`, {
            inject: child.kill("SIGTERM"),
            ...scene.cluster.nodes.includes(child) ? { of: queuesOf(scene, before) } : {}
          })
          yield* reborn(child, before)
        }
      }
      const tooSoon = (yield* ended).length
      if (tooSoon > 0) scene.violate({ checker: "unknownTask", what: `${tooSoon} runs of an unknown task have ended` })
      yield* scene.fault("a worker of the later release joins")
      yield* scene.cluster.addWorker("worker-newer", "newer")
      yield* eventually(
        "the runs of the later release have succeeded",
        ended,
        (rows) => rows.length === newerRuns && rows.every(({ state }) => state === 5)
      )
    })
}

const stayMs = 3_000
const convergeWithin = "10 seconds"

/** Every partition is owned by a node that lives. */
const converged = (scene: Scene) =>
  Effect.gen(function*() {
    const began = performance.now()
    const live = yield* nodeIdsOf(scene)
    const orphans = scene.query(
      "select 1 from orrery.partitions where not owner = any($1::text[])",
      [live.filter((id) => id !== undefined)]
    )
    const inTime = yield* Effect.timeoutOption(
      eventually("every partition has an owner", orphans, (rows) => rows.length === 0),
      convergeWithin
    )
    if (Option.isNone(inTime)) scene.violate({ checker: "convergence", what: `not within ${convergeWithin}` })
    return performance.now() - began
  })

export const churn: Scenario = {
  name: "churn",
  catalogue: "T29",
  what: "a fourth node joins and leaves, by SIGTERM or SIGKILL, again and again",
  times: 6,
  quickTimes: 2,
  play: (scene) =>
    Effect.gen(function*() {
      let slowest = 0
      for (let n = 0; n < scene.times; n++) {
        const signal = inTurn(["SIGTERM", "SIGKILL"] as const, n)
        const place = yield* scene.newPlace(`node-${4 + n}`)
        yield* scene.event(`${place.name} joins, stays ${stayMs} ms, and leaves by ${signal}`, {
          inject: Effect.scoped(Effect.gen(function*() {
            const node = yield* scene.cluster.addNode(place)
            yield* Effect.sleep(stayMs)
            if (signal === "SIGKILL") yield* node.kill("SIGKILL")
            yield* node.stop
          }))
        })
        slowest = Math.max(slowest, yield* converged(scene))
      }
      scene.note("slowestConvergenceMs", Math.round(slowest))
    })
}

/** Two tries of a start that cannot succeed take far less. */
const refusedWithin = "40 seconds"

export const duplicateIdentity: Scenario = {
  name: "duplicate-identity",
  catalogue: "T27",
  what: "a second process with the addresses of a node: it does not start, and the first goes on",
  times: 2,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const place = inTurn(scene.cluster.places, n)
        const first = inTurn(scene.cluster.nodes, n)
        const before = yield* first.pid
        yield* scene.event(`a twin of ${place.name} is started`, {
          inject: Effect.scoped(Effect.gen(function*() {
            const twin = yield* scene.cluster.launchNode({ ...place, name: `twin-of-${place.name}` })
            const ended = yield* Effect.timeoutOption(twin.ended, refusedWithin)
            const ready = yield* twin.lastReady
            if (ready !== undefined) scene.violate({ checker: "twin", what: `the twin of ${place.name} became ready` })
            if (Option.isNone(ended)) scene.note("twin", `was still trying after ${refusedWithin}`)
          }))
        })
        if ((yield* first.pid) !== before) {
          scene.violate({ checker: "survival", what: `${place.name} did not survive its twin` })
        }
      }
    })
}
