/**
 * `npm run simulate`: simulated histories of the sample tasks, as many as asked for.
 *
 *   npm run simulate -- --from 1 --count 2000        those seeds
 *   npm run simulate -- --minutes 10                 from a random seed on
 *   npm run simulate -- --threads 1                  on one core; default: on all
 */
import { Effect } from "effect"
import { availableParallelism } from "node:os"
import { isMainThread } from "node:worker_threads"
import { type Explored, told } from "./explore.js"
import { answer, exploreOn } from "./exploreOn.js"
import { options } from "./sampleTasks.js"

const minuteMs = 60_000
const seedMax = 2 ** 31
const threadsMax = 256
/** How often it is told how far it is, ms. */
const tellMs = 60_000

const argument = (name: string): number | undefined => {
  const at = process.argv.indexOf(`--${name}`)
  if (at < 0) return undefined
  const value = Number(process.argv[at + 1])
  if (Number.isInteger(value) && value >= 0) return value
  throw new Error(`--${name} must be a whole number, got ${process.argv[at + 1]}`)
}

const main = Effect.gen(function*() {
  const from = argument("from") ?? Math.floor(Math.random() * seedMax)
  const minutes = argument("minutes")
  const count = argument("count") ?? (minutes === undefined ? 2_000 : Infinity)
  const threads = argument("threads") ?? availableParallelism()
  if (threads < 1 || threads > threadsMax) {
    return yield* Effect.dieMessage(`--threads must be 1 to ${threadsMax}, got ${threads}`)
  }
  const startedAt = process.hrtime.bigint()
  const elapsedMs = () => Number((process.hrtime.bigint() - startedAt) / 1_000_000n)
  process.stdout.write(`simulating from seed ${from}\n`)
  const isLate = () => minutes !== undefined && elapsedMs() > minutes * minuteMs
  let toldAt = 0
  const progress = ({ failure, histories }: Explored): void => {
    if (elapsedMs() - toldAt < tellMs) return
    toldAt = elapsedMs()
    const end = failure === undefined ? "all clean" : `seed ${failure.seed} breaks a promise`
    process.stdout.write(`${Math.round(toldAt / 1_000)} s: ${histories} histories, ${end}\n`)
  }
  const file = process.argv[1]!
  const { failure, ...sum } = yield* exploreOn({ threads, file, isLate }, { from, count }, progress)
  if (failure !== undefined) {
    process.stdout.write(`${told(failure)}\n`)
    process.exitCode = 1
  }
  const perMinute = Math.round(sum.histories / elapsedMs() * minuteMs)
  const simulatedMs = Math.round(sum.simulatedMs)
  process.stdout.write(`${JSON.stringify({ from, ...sum, simulatedMs, threads, perMinute })}\n`)
})

if (isMainThread) {
  Effect.runPromise(main).catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exitCode = 1
  })
} else answer(options)
