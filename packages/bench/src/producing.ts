/** What a producer process does with a system: bulk, closed loop (callers wait for answers), open loop (they do not). */
import type { Bulk, ClosedLoop, JobShape, OpenLoop, Submitted } from "./Calls.js"
import { quantiles, randomOf, randomText } from "./statistics.js"
import { type Job, monotonicUs, type Producer } from "./System.js"
import { tenantOf } from "./tenants.js"

/** Above 200/s jobs are submitted in groups, every 5 ms: a timer per job would be most of what the producer does. */
const tickMs = 5
/** Answers that are still missing this long after the last submission are counted as failed, ms. */
const answersWithinMs = 10_000

const makerOf = (shape: JobShape): (index: number, submittedUs: number, dueMs: number) => Job => {
  const filler = randomText(shape.fillerChars, randomOf(shape.seed))
  return (index, submittedUs, dueMs) => ({
    index,
    submittedUs,
    dueMs,
    queue: index % shape.queues,
    filler,
    ...(shape.keys > 0 ? { key: `key-${index % shape.keys}` } : {}),
    ...(shape.tenants > 0 ? { tenant: `tenant-${tenantOf(index, shape.tenants)}` } : {})
  })
}

export const bulk = async (producer: Producer, options: Bulk): Promise<{ fromUs: number; toUs: number }> => {
  const make = makerOf(options.shape)
  const { count, dueMs, dueSpreadMs, firstIndex } = options
  const now = monotonicUs()
  const jobs = Array.from(
    { length: count },
    (_, at) => make(firstIndex + at, now, dueMs === 0 ? 0 : Math.round(dueMs + dueSpreadMs * at / count))
  )
  const fromUs = monotonicUs()
  await producer.enqueueBulk(jobs)
  return { fromUs, toUs: monotonicUs() }
}

/** Counts answers and failures of single enqueues. */
class Answers {
  readonly latencies: Array<number> = []
  readonly fromUs = monotonicUs()
  toUs = this.fromUs
  acknowledged = 0
  failed = 0
  failure = ""
  inFlight = 0

  async submit(producer: Producer, job: Job): Promise<void> {
    this.inFlight += 1
    try {
      await producer.enqueueOne(job)
      this.acknowledged += 1
    } catch (error) {
      this.failed += 1
      if (this.failure === "") this.failure = error instanceof Error ? error.message : String(error)
    }
    this.inFlight -= 1
    this.toUs = monotonicUs()
    this.latencies.push((this.toUs - job.submittedUs) / 1_000)
  }

  toSubmitted(missing: number): Submitted {
    const { acknowledged, failed, failure, fromUs, latencies, toUs } = this
    return {
      acknowledged,
      failed: failed + missing,
      failure: failure === "" && missing > 0 ? "no answer in time" : failure,
      fromUs,
      toUs,
      answer: quantiles(latencies)
    }
  }
}

export const closedLoop = async (producer: Producer, options: ClosedLoop): Promise<Submitted> => {
  const make = makerOf(options.shape)
  const answers = new Answers()
  const endUs = answers.fromUs + options.forMs * 1_000
  let next = options.firstIndex
  const caller = async () => {
    for (let nowUs = monotonicUs(); nowUs < endUs; nowUs = monotonicUs()) {
      await answers.submit(producer, make(next++, nowUs, 0))
    }
  }
  await Promise.all(Array.from({ length: options.callers }, caller))
  return answers.toSubmitted(0)
}

/** Job n is due for submission n / rate after the start, whether or not those before it were answered. */
export const openLoop = async (producer: Producer, options: OpenLoop): Promise<Submitted> => {
  const make = makerOf(options.shape)
  const { firstIndex, forMs, inFlightMax, perSecond } = options
  const answers = new Answers()
  const total = Math.round(perSecond * forMs / 1_000)
  const intendedUs = (n: number) => Math.round(answers.fromUs + n * 1_000_000 / perSecond)
  let next = 0
  // Jobs held back by the bound are submitted within the same grace as answers are waited for.
  const giveUpUs = answers.fromUs + (forMs + answersWithinMs) * 1_000
  while (next < total && monotonicUs() < giveUpUs) {
    const nowUs = monotonicUs()
    while (next < total && intendedUs(next) <= nowUs && answers.inFlight < inFlightMax) {
      void answers.submit(producer, make(firstIndex + next, intendedUs(next), 0))
      next += 1
    }
    await pause(perSecond > 1_000 / tickMs ? tickMs : (intendedUs(next) - monotonicUs()) / 1_000)
  }
  while (answers.inFlight > 0 && monotonicUs() < giveUpUs) await pause(tickMs)
  return answers.toSubmitted(answers.inFlight + total - next)
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))
