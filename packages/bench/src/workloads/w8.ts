/** W8: two workers hold 100 long jobs; the one with more is killed: how long until all of its jobs run again. */
import { Effect } from "effect"
import type { Description } from "../Calls.js"
import { awaitStarted, fill } from "../loads.js"
import type { Role, RoleFailed } from "../Role.js"
import { type Bench, MeasureInvalid, open, shapeOf, type Stage } from "../Stage.js"
import { monotonicUs } from "../System.js"
import type { Measured, Workload } from "../Workload.js"

const jobs = 100
const handlerMs = 5_000
/** A system that has not begun them again by then does not within any time an operator would wait. */
const capMs = 90_000
const lookEvery = "20 millis"

const measure = (bench: Bench, system: Description) =>
  Effect.gen(function*() {
    const stage = yield* open(bench, system, { queues: 1, keepHistory: true })
    const start = stage.work({ concurrency: jobs, handlerMs })
    const workers = yield* Effect.all([start, start], { concurrency: 2 })
    const producer = yield* stage.produce
    yield* submit(stage, producer)
    yield* awaitStarted(workers, jobs)
    const held = yield* Effect.forEach(workers, (worker) => worker.ask("running", null))
    const victimAt = held[0].length >= held[1]!.length ? 0 : 1
    const [victim, other] = [workers[victimAt], workers[1 - victimAt]!]
    const lost = held[victimAt]!
    if (lost.length === 0) {
      return yield* new MeasureInvalid({ reason: "no worker held a job when one was to be killed" })
    }
    const killedUs = monotonicUs()
    yield* victim.kill
    const again = yield* startedAgain(other, lost, killedUs)
    const isWithin = again.size === lost.length
    const value = isWithin ? (Math.max(...again.values()) - killedUs) / 1_000 : capMs
    const details = { held: lost.length, again: again.size, atLeast: !isWithin }
    return [{ workload: "W8", value, unit: "ms", better: "lower", details }] satisfies Array<Measured>
  })

/** One by one: a bulk might go to one worker as a whole. */
const submit = (stage: Stage, producer: Role) =>
  Effect.forEach(
    Array.from({ length: jobs }, (_, index) => index),
    (firstIndex) => fill(producer, { shape: shapeOf(stage), firstIndex, count: 1, dueMs: 0, dueSpreadMs: 0 }),
    { discard: true }
  )

/** When each of the jobs first started on the other worker after the kill, as far as it did within the cap. */
const startedAgain = (
  other: Role,
  lost: ReadonlyArray<number>,
  sinceUs: number
): Effect.Effect<ReadonlyMap<number, number>, RoleFailed> =>
  Effect.gen(function*() {
    const again = new Map<number, number>()
    while (again.size < lost.length && monotonicUs() - sinceUs < capMs * 1_000) {
      for (const [index, atUs] of yield* other.ask("startsSince", { sinceUs })) {
        if (lost.includes(index) && !again.has(index)) again.set(index, atUs)
      }
      yield* Effect.sleep(lookEvery)
    }
    return again
  })

export const w8: Workload = {
  id: "W8",
  title: "recovery",
  cases: [{
    id: "W8",
    title: "until all jobs of a killed worker run again, default settings",
    inQuick: true,
    run: measure
  }]
}
