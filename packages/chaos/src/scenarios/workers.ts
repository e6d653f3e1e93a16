/** What happens to worker processes, and what their handlers do to them. */
import type { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import { Context, Duration, Effect } from "effect"
import { nap, type Poison, poison, poisons } from "../chaosTasks.js"
import { eventually } from "../patience.js"
import type { Scenario, Scene } from "../Scenario.js"

/** Beside the load, so that the victim holds a hundred or more where workers have the slots. */
const naps = 280
const napMs = 6_000
const napQuickMs = 3_000

interface Held {
  readonly id: RunId
  readonly worker: string
}

const running = (scene: Scene, ids: ReadonlyArray<RunId>) =>
  scene.query<Held>("select id, worker from orrery.runs where state = 3 and id = any($1::uuid[])", [ids])

/** Those that another worker runs, or that are over. One that had not begun has the same number of attempt as before. */
const restarted = (scene: Scene, held: ReadonlyArray<Held>, victim: string) =>
  scene.query<{ count: number }>(
    `select (select count(*) from orrery.runs where id = any($1::uuid[]) and state = 3 and worker <> $2)::int
      + (select count(*) from orrery.run_history where id = any($1::uuid[]))::int as count`,
    [held.map(({ id }) => id), victim]
  )

const killOnce = (scene: Scene, n: number) =>
  Effect.gen(function*() {
    const ids = yield* nap.enqueueMany(Array.from({ length: naps }, () => ({ ms: scene.isQuick ? napQuickMs : napMs })))
      .pipe(
        Effect.provide(scene.client)
      )
    const slots = yield* eventually("most naps have begun", running(scene, ids), (rows) => rows.length >= naps / 4)
    yield* Effect.sleep("500 millis")
    const names = yield* Effect.forEach(scene.cluster.workers, (each) => Effect.map(each.ready, ({ nodeId }) => nodeId))
    const victim = n % names.length
    const before = (yield* running(scene, ids)).filter(({ worker }) => worker === names[victim])
    yield* scene.fault(
      `SIGKILL of ${scene.cluster.workers[victim]!.name}, which runs ${before.length} of ${slots.length}`
    )
    const killedAt = performance.now()
    yield* scene.cluster.workers[victim]!.kill("SIGKILL")
    yield* eventually(
      "its attempts have begun again",
      restarted(scene, before, names[victim]!),
      ([row]) => row!.count >= before.length
    )
    const ms = performance.now() - killedAt
    scene.recovered(ms)
    scene.note("attemptsHeld", before.length)
    yield* eventually(
      "the naps are over",
      scene.query("select 1 from orrery.runs where id = any($1::uuid[])", [ids]),
      (rows) => rows.length === 0
    )
    yield* scene.cluster.workers[victim]!.ready
  }).pipe(Effect.orDie)

export const killWorker: Scenario = {
  name: "kill-worker",
  catalogue: "-",
  what: "SIGKILL of a worker that runs a hundred attempts or more: until all have begun again",
  setting: { slots: 320 },
  times: 4,
  quickTimes: 1,
  play: (scene) => Effect.forEach(numbers(scene.times), (n) => killOnce(scene, n), { discard: true })
}

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, at) => at)

/** A handler that holds its worker for longer than a lease does so on three workers before it is given up. */
const poisonEndsWithin = Duration.seconds(85)

const swallowPoison = (scene: Scene, kind: Poison) =>
  Effect.gen(function*() {
    const runs = Context.get(scene.client, Runs)
    yield* scene.load.allServed
    yield* scene.fault(`a run that ${kind}`)
    scene.load.longestGap()
    const id = yield* poison.enqueue({ kind }).pipe(Effect.provide(scene.client))
    const end = yield* runs.awaitFinal(id).pipe(
      Effect.timeoutFail({ duration: poisonEndsWithin, onTimeout: () => new Error(`the run that ${kind} never ended`) })
    )
    yield* scene.load.allServed
    scene.note(`${kind}: longest gap of the load, ms`, Math.round(scene.load.longestGap()))
    scene.note(kind, `${end.state}: ${end.failure?.kind ?? "no reason"} ${end.failure?.tag ?? ""}`)
    if (end.state !== "failed" || end.failure === null) {
      scene.violate({ checker: "poison", run: id, what: `the run that ${kind} ended as ${end.state}` })
    }
  }).pipe(Effect.orDie)

export const poisonTask: Scenario = {
  name: "poison-task",
  catalogue: "T20",
  what: "handlers that throw, exit, overflow, block, eat memory, never end: each ends as failed, the load goes on",
  setting: { workers: 3 },
  times: poisons.length,
  quickTimes: poisons.length,
  play: (scene) =>
    Effect.forEach(numbers(scene.times), (n) => swallowPoison(scene, poisons[n % poisons.length]!), { discard: true })
}
