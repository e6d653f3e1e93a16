/** What happens to node processes: death, freezes, a blocked event loop, a drain. */
import type { Supervised } from "@orrery/cli/Supervisor"
import { Runs } from "@orrery/core/Runs"
import { Context, Duration, Effect } from "effect"
import { block, nap, queues } from "../chaosTasks.js"
import { eventually } from "../patience.js"
import type { Scenario, Scene } from "../Scenario.js"
import { allSurvive, inTurn, nodeIdOf, nodeIdsOf, queuesOf, reborn } from "./processes.js"

/** One that is asked to end takes its time: what its queues suffer on the way counts, up to its last moment. */
const end = (victim: Supervised, signal: NodeJS.Signals) =>
  Effect.gen(function*() {
    const before = yield* victim.pid
    yield* victim.kill(signal)
    if (signal === "SIGTERM") yield* eventually(`${victim.name} has ended`, victim.pid, (pid) => pid !== before)
  })

/** In turn, without those that own no queue under load just now: where the shards fall is not up to the scenario. */
const nextVictim = (scene: Scene, n: number) =>
  Effect.gen(function*() {
    const { nodes } = scene.cluster
    for (let skipped = 0; skipped < nodes.length; skipped++) {
      const victim = inTurn(nodes, n + skipped)
      const its = yield* queuesOf(scene, yield* nodeIdOf(victim))
      if (queues.some((queue) => its.has(queue))) return victim
    }
    return inTurn(nodes, n)
  })

const kills = (scene: Scene, signal: NodeJS.Signals) =>
  Effect.gen(function*() {
    for (let n = 0; n < scene.times; n++) {
      const victim = yield* nextVictim(scene, n)
      const before = yield* nodeIdOf(victim)
      yield* scene.event(`${signal} of ${victim.name}`, { inject: end(victim, signal), of: queuesOf(scene, before) })
      yield* reborn(victim, before)
    }
  })

export const killNode: Scenario = {
  name: "kill-node",
  catalogue: "T01",
  what: "SIGKILL of one node after the other",
  times: 6,
  quickTimes: 2,
  play: (scene) => kills(scene, "SIGKILL")
}

export const killAllNodes: Scenario = {
  name: "kill-all-nodes",
  catalogue: "T02",
  what: "SIGKILL of all nodes at once",
  times: 3,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const before = yield* nodeIdsOf(scene)
        yield* scene.event("SIGKILL of all nodes", {
          inject: Effect.forEach(scene.cluster.nodes, (node) => node.kill("SIGKILL"))
        })
        yield* Effect.forEach(scene.cluster.nodes, (node, at) => reborn(node, before[at]))
      }
    })
}

const epochsOf = (scene: Scene): Effect.Effect<number> =>
  Effect.map(
    scene.query<{ epochs: number }>("select coalesce(sum(epoch), 0)::integer as epochs from orrery.partitions", []),
    ([row]) => row!.epochs
  )

export const fullLoad: Scenario = {
  name: "full-load",
  catalogue: "T03",
  what: "nothing, for so many minutes under load: no node may take another for dead, and no queue change its owner",
  times: 10,
  quickTimes: 1,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        const before = yield* epochsOf(scene)
        yield* Effect.sleep(Duration.minutes(scene.times))
        const moved = (yield* epochsOf(scene)) - before
        if (moved > 0) scene.violate({ checker: "survival", what: `queues changed their owners ${moved} times` })
        scene.note("minutes without a false alarm", scene.times)
        scene.note("longest time without an answer, ms", scene.load.longestGap())
      })
    )
}

/** So that the frozen node's own worker is in the middle of some, and tells of them when it thaws. */
const napsWhileFrozen = 60
const napMs = 500

/** Partitions of an owner with something to do: one at rest keeps its owner until there is. */
const workOf = `select 1 from orrery.partitions p
  where owner = $1 and exists (select from orrery.runs r where r.partition_id = p.id)`

export const pauseNode: Scenario = {
  name: "pause-node",
  catalogue: "T03",
  what: "SIGSTOP of a node until all it owned has other owners, then SIGCONT",
  times: 4,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const victim = inTurn(scene.cluster.nodes, n)
        const before = yield* nodeIdOf(victim)
        yield* nap.enqueueMany(Array.from({ length: napsWhileFrozen }, () => ({ ms: napMs }))).pipe(
          Effect.provide(scene.client)
        )
        // Thawed whatever happens: a frozen process does not end when it is asked to.
        yield* Effect.zipRight(
          scene.event(`SIGSTOP of ${victim.name}`, { inject: victim.kill("SIGSTOP") }),
          eventually(`no work is owned by the frozen ${victim.name}`, scene.query(workOf, [before]), (rows) =>
            rows.length === 0)
        ).pipe(Effect.ensuring(victim.kill("SIGCONT")))
        yield* reborn(victim, before)
      }
    })
}

/** Below the 2.5 s after which a node leaves and its peers leave it out. */
const shortPauseMs = { min: 200, max: 1_500 }
const betweenPausesMs = 2_000
/** On a machine with other work a pause may become longer than it was meant. */
const leavesMax = 1

export const shortPauses: Scenario = {
  name: "short-pauses",
  catalogue: "T04",
  what: "SIGSTOP of nodes for 0.2 to 1.5 s: nobody takes anything over",
  times: 20,
  quickTimes: 6,
  play: (scene) =>
    Effect.gen(function*() {
      const before = yield* nodeIdsOf(scene)
      scene.load.longestGap()
      for (let n = 0; n < scene.times; n++) {
        const victim = scene.random.pick(scene.cluster.nodes)
        const ms = scene.random.integer(shortPauseMs.min, shortPauseMs.max)
        yield* scene.fault(`SIGSTOP of ${victim.name} for ${ms} ms`)
        yield* victim.kill("SIGSTOP")
        yield* Effect.sleep(ms)
        yield* victim.kill("SIGCONT")
        yield* Effect.sleep(betweenPausesMs)
      }
      yield* scene.load.allServed
      scene.note("longestGapMs", Math.round(scene.load.longestGap()))
      const after = yield* nodeIdsOf(scene)
      const left = after.filter((id, at) => id !== before[at]).length
      scene.note("nodesLeft", left)
      if (left > leavesMax) {
        scene.violate({ checker: "falseAlarm", what: `${left} nodes left for pauses below the limit` })
      }
    })
}

/** Above the limit of 2.5 s for its own lag. */
const blockMs = 6_000

export const blockEventLoop: Scenario = {
  name: "block-event-loop",
  catalogue: "T05",
  what: "a handler stops the event loop of the node it runs in for 6 s",
  times: 3,
  quickTimes: 1,
  play: (scene) =>
    Effect.gen(function*() {
      const runs = Context.get(scene.client, Runs)
      for (let n = 0; n < scene.times; n++) {
        const ids: Array<string> = []
        yield* scene.event(`a handler blocks for ${blockMs} ms`, {
          inject: Effect.gen(function*() {
            const id = yield* block.enqueue({ ms: blockMs })
            ids.push(id)
            yield* eventually("the handler has begun", Effect.option(runs.get(id)), (run) =>
              run._tag === "Some" && run.value.state !== "ready")
          }).pipe(Effect.provide(scene.client))
        })
        const over = yield* eventually(
          "the blocking run has ended on another try",
          scene.query<{ state: number }>("select state from orrery.run_history where id = any($1::uuid[])", [ids]),
          (rows) =>
            rows.length === 1
        )
        scene.note("blockingRunState", over[0]!.state)
      }
    })
}

export const drainNode: Scenario = {
  name: "drain-node",
  catalogue: "T25",
  what: "SIGTERM of one node after the other: no attempt is burned",
  times: 6,
  quickTimes: 2,
  play: (scene) =>
    Effect.gen(function*() {
      const [begin] = yield* scene.query<{ now: number }>(
        "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now"
      )
      yield* kills(scene, "SIGTERM")
      const [found] = yield* scene.query<{ burned: number }>(
        `select count(*)::int as burned from orrery.run_history
         where created_at >= $1 and task like 'step-%'
           and (crashes > 0 or attempt > (payload::json ->> 'failures')::int + 1)`,
        [begin!.now]
      )
      scene.note("attemptsBurned", found!.burned)
      if (found!.burned > 0) {
        scene.violate({ checker: "attemptsBurned", what: `${found!.burned} runs lost an attempt to a drain` })
      }
    })
}
