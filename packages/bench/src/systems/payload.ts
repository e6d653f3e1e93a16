/** What all peers do alike with jobs before they are handed over. */
import type { Job, JobPayload } from "../System.js"

/** The part that travels. */
export const payloadOf = ({ dueMs, filler, index, submittedUs }: Job): JobPayload => ({
  index,
  submittedUs,
  dueMs,
  filler
})

interface Chunk {
  readonly queue: number
  readonly jobs: ReadonlyArray<Job>
}

/** For bulk calls that take jobs of one queue: `size` jobs each, in their order. */
export const chunksByQueue = (jobs: ReadonlyArray<Job>, size: number): ReadonlyArray<Chunk> => {
  const byQueue = new Map<number, Array<Job>>()
  for (const job of jobs) {
    const known = byQueue.get(job.queue)
    if (known === undefined) byQueue.set(job.queue, [job])
    else known.push(job)
  }
  return [...byQueue].flatMap(([queue, ofQueue]) =>
    Array.from({ length: Math.ceil(ofQueue.length / size) }, (_, at) => ({
      queue,
      jobs: ofQueue.slice(at * size, (at + 1) * size)
    }))
  )
}

/** Calls `each` for all jobs, `inFlight` at a time: for systems without a bulk call. */
export const eachInFlight = async (
  jobs: ReadonlyArray<Job>,
  inFlight: number,
  each: (job: Job) => Promise<unknown>
): Promise<void> => {
  let next = 0
  const lane = async () => {
    for (let job = jobs[next++]; job !== undefined; job = jobs[next++]) await each(job)
  }
  await Promise.all(Array.from({ length: inFlight }, lane))
}
