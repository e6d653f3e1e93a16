/** When nothing can happen any more before the clock is moved, or the test does something. */
import type { Residents } from "@orrery/cluster/Residents"
import { Effect } from "effect"
import type { TestAttempts } from "./TestAttempts.js"
import type { TestWorkers } from "./TestWorkers.js"

export interface Watched {
  readonly residents: Residents["Type"]
  readonly workers: TestWorkers
  readonly attempts: TestAttempts
  readonly tasks: ReadonlySet<string>
  readonly slots: number
  /** Enqueues under way. */
  readonly calls: () => number
  /** How long a handler that waits for something else than the clock is waited for, ms. */
  readonly patienceMs: number
}

/** Turns of the event loop in which nothing has happened. */
const quietTurns = 3
/** A test that has not become quiet by then goes round in circles, ms. */
const drainMsMax = 30_000

/** Fibers and callbacks that can go on have gone on; real timers that are over have rung. */
const turn: Effect.Effect<void> = Effect.async((resume) => {
  setTimeout(() => setImmediate(() => resume(Effect.void)), 0)
})

/** Why it is not quiet, in words. */
const unrest = ({ attempts, calls, residents, slots, tasks, workers }: Watched): string | undefined => {
  if (calls() > 0) return "an enqueue is under way"
  if (residents.hub.workerCount === 0) return "the worker is attaching"
  const worker = workers.current()
  let out = 0
  let slotsOut = 0
  for (const actor of residents.list()) {
    if (!actor.isWritten) return "something is being written"
    out += actor.machine.leases.countOf(worker)
    slotsOut += actor.machine.heldBy(worker)
  }
  if (out !== attempts.countOf(worker)) return "an attempt is on its way to or from the worker"
  // A run that takes many slots waits until so many are free, and others behind it.
  if (slotsOut >= slots || residents.hub.isReserved(worker)) return undefined
  const couldStart = residents.list().some(({ machine }) => machine.wants(tasks, slots - slotsOut) > 0)
  return couldStart ? "a run could start" : undefined
}

const progress = ({ attempts, residents }: Watched): number =>
  residents.list().reduce((sum, actor) => sum + actor.commits, attempts.moves)

/** Waits until it is quiet. Dies when that takes too long. */
export const untilQuiet = (watched: Watched): Effect.Effect<void> =>
  Effect.gen(function*() {
    const began = performance.now()
    let movedAt = began
    let before = progress(watched)
    for (let turns = 0; turns < quietTurns;) {
      yield* turn
      const now = performance.now()
      const reason = unrest(watched)
      const after = progress(watched)
      if (after !== before) movedAt = now
      const isPatient = watched.attempts.allWait || now - movedAt >= watched.patienceMs
      turns = reason === undefined && after === before && isPatient ? turns + 1 : 0
      before = after
      if (now - began > drainMsMax) {
        return yield* Effect.dieMessage(`not quiet after ${drainMsMax} ms: ${reason ?? "handlers go on and on"}`)
      }
    }
  })
