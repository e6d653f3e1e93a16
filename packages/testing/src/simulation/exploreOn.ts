/**
 * Histories on several cores. Each thread has clocks and timers of its own, so a history on one is not seen by another, and
 * is the same as on any other thread.
 */
import { Effect } from "effect"
import { parentPort, Worker } from "node:worker_threads"
import { explore, type Explored, nothing, plus } from "./explore.js"
import type * as Simulation from "./Simulation.js"

/** Histories that a thread is asked for at once: a few seconds of work. */
const partCount = 100
/**
 * Space for what is new, of each thread, MiB: three times what is filled between two collections. A history makes some 14 MB of
 * garbage; with less space more of it is copied while it is in use, with more it no longer fits into the caches.
 */
const maxYoungGenerationSizeMb = 96

export interface Range {
  readonly from: number
  readonly count: number
}

/** What a thread does: answers each range it is asked for, until the thread that asks ends it. */
export const answer = (options: Simulation.Options): void => {
  parentPort?.on("message", (range: Range) => parentPort?.postMessage(explore(range, options)))
}

/**
 * Explores `from` to `from + count - 1` on so many threads, each of which runs `file` and calls `answer`. Nothing new begins
 * after the first failure, or when `isLate` says so; what has begun ends. Dies when a thread does.
 */
export const exploreOn = (
  { file, isLate, threads }: { readonly threads: number; readonly file: string; readonly isLate: () => boolean },
  { count, from }: Range,
  told: (soFar: Explored) => void = () => undefined
): Effect.Effect<Explored> => {
  let sum = nothing()
  let next = from
  const end = from + count
  const part = (): Range | undefined => {
    if (sum.failure !== undefined || next >= end || isLate()) return undefined
    const range = { from: next, count: Math.min(partCount, end - next) }
    next += range.count
    return range
  }
  const thread = Effect.acquireUseRelease(
    Effect.sync(() => new Worker(file, { resourceLimits: { maxYoungGenerationSizeMb } })),
    (worker) =>
      Effect.async<void>((resume) => {
        const ask = (): void => {
          const range = part()
          if (range === undefined) resume(Effect.void)
          else worker.postMessage(range)
        }
        worker.on("message", (explored: Explored) => {
          sum = plus(sum, explored)
          told(sum)
          ask()
        })
        worker.on("error", (error) => resume(Effect.die(error)))
        ask()
      }),
    (worker) => Effect.promise(() => worker.terminate())
  )
  return Effect.map(
    Effect.all(Array.from({ length: threads }, () => thread), { concurrency: threads, discard: true }),
    () => sum
  )
}
