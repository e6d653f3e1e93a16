/**
 * The short tier: seven scenarios with fixed seeds on one cluster, one after the other, and one look at everything in the end.
 * The long tier is `npm run chaos`.
 */
import { assert, layer } from "@effect/vitest"
import { Context, type Duration, Effect, Layer } from "effect"
import { mkdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { conclude } from "../src/conclude.js"
import { type Played, playOn } from "../src/play.js"
import * as Postgres from "../src/Postgres.js"
import type { Scenario } from "../src/Scenario.js"
import * as database from "../src/scenarios/database.js"
import * as network from "../src/scenarios/network.js"
import * as nodes from "../src/scenarios/nodes.js"
import * as workers from "../src/scenarios/workers.js"
import * as Stages from "../src/Stage.js"

const seed = 20_261_124
const folder = fileURLToPath(new URL("../../../.orrery/test/chaos", import.meta.url))
/** The promises are 2 s and 5 s; a test machine may be busy with other tests. The figures are in docs/reliability.md. */
const servedWithinMs = 10_000
/** A node that nobody reaches comes back again and again for as long as it lasts, and takes queues each time. */
const servedAfterPartitionWithinMs = 40_000
const timeout = 120_000
const startTimeout = 120_000
/** After an event. Scenarios wait by themselves for what they killed. */
const soon = "100 millis"
/** Of the first scenario; the others find the stage warm. */
const warmUpFirst = "1 second"

class Stage extends Context.Tag("@orrery/chaos/test/Stage")<Stage, Stages.Stage>() {}

const stage = Layer.scoped(
  Stage,
  Effect.gen(function*() {
    rmSync(`${folder}/histories`, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const postgres = yield* Postgres.start(folder)
    return yield* Stages.start({
      postgres,
      seed,
      name: `tier_${process.pid}`,
      folder: `${folder}/histories`,
      links: ["postgres", "data", "runner"],
      slots: 120
    })
  })
)

let warmUp: Duration.DurationInput = warmUpFirst
const play = (
  scenario: Scenario,
  times: number,
  betweenEvents: Duration.DurationInput = soon
): Effect.Effect<Played, never, Stage> =>
  Effect.flatMap(Stage, (stage) => {
    // What is usual on this machine is for the figures.
    const options = { seed, times, isQuick: true, warmUp, betweenEvents, usualFor: 0, onProgress: () => undefined }
    warmUp = 0
    return Effect.scoped(playOn(stage, scenario, options))
  })

const assertServed = ({ recoveries, violations }: Played, withinMs = servedWithinMs) => {
  assert.deepStrictEqual(violations, [])
  assert.isNotEmpty(recoveries)
  for (const each of recoveries) assert.isBelow(each, withinMs)
}

layer(stage, { excludeTestServices: true, timeout: startTimeout })("chaos, short tier", (it) => {
  it.effect("burns no attempt when a node is drained", () =>
    Effect.gen(function*() {
      const played = yield* play(nodes.drainNode, 1)

      assertServed(played)
      assert.strictEqual(played.notes["attemptsBurned"], 0)
    }), timeout)

  it.effect(
    "serves the queues of a killed node elsewhere",
    () => Effect.map(play(nodes.killNode, 2), (played) => assertServed(played)),
    timeout
  )

  it.effect(
    "serves the queues of a frozen node elsewhere, and takes it back as another",
    () => Effect.map(play(nodes.pauseNode, 1), (played) => assertServed(played)),
    timeout
  )

  it.effect(
    "begins the attempts of a killed worker again",
    () => Effect.map(play(workers.killWorker, 1), (played) => assertServed(played)),
    timeout
  )

  it.effect(
    "goes on when PostgreSQL is back after a crash",
    () => Effect.map(play(database.restartPostgres, 1, "3 seconds"), (played) => assertServed(played)),
    timeout
  )

  it.effect(
    "finds out what became of a commit whose answer was lost",
    () => Effect.map(play(network.lostCommitAnswer, 3), (played) => assertServed(played)),
    timeout
  )

  it.effect(
    "serves every queue although a node is cut off from the others",
    () => Effect.map(play(network.partitionNode, 1), (played) => assertServed(played, servedAfterPartitionWithinMs)),
    timeout
  )

  it.effect("has lost, doubled and broken nothing in all this", () =>
    Effect.gen(function*() {
      const { history, runs, violations } = yield* conclude(yield* Stage)

      assert.deepStrictEqual(violations, [])
      // That nothing was found means something only if everything was told.
      const count = (tag: string) => history.filter((event) => event._tag === tag).length
      assert.isAbove(runs, 500)
      assert.isAtLeast(count("committed"), runs)
      assert.isAtLeast(count("started"), runs / 2)
      assert.isAtLeast(count("final"), runs)
      assert.isAbove(count("read"), 0)
    }), timeout)
})
