/**
 * `npm run simulate`: simulated histories of the sample tasks, as many as asked for.
 *
 *   npm run simulate -- --from 1 --count 2000        those seeds
 *   npm run simulate -- --minutes 10                 from a random seed on, on one core
 */
import { Effect } from "effect"
import { explore, told } from "./explore.js"
import { options } from "./sampleTasks.js"

const minuteMs = 60_000
const seedMax = 2 ** 31

const argument = (name: string): number | undefined => {
  const at = process.argv.indexOf(`--${name}`)
  if (at < 0) return undefined
  const value = Number(process.argv[at + 1])
  if (Number.isInteger(value) && value >= 0) return value
  throw new Error(`--${name} must be a whole number, got ${process.argv[at + 1]}`)
}

const main = Effect.sync(() => {
  const from = argument("from") ?? Math.floor(Math.random() * seedMax)
  const minutes = argument("minutes")
  const count = argument("count") ?? (minutes === undefined ? 2_000 : Infinity)
  const startedAt = process.hrtime.bigint()
  const elapsedMs = () => Number((process.hrtime.bigint() - startedAt) / 1_000_000n)
  process.stdout.write(`simulating from seed ${from}\n`)
  const isLate = () => minutes !== undefined && elapsedMs() > minutes * minuteMs
  const { failure, ...sum } = explore({ from, count, isLate }, options)
  if (failure !== undefined) {
    process.stdout.write(`${told(failure)}\n`)
    process.exitCode = 1
  }
  const perMinute = Math.round(sum.histories / elapsedMs() * minuteMs)
  process.stdout.write(`${JSON.stringify({ from, ...sum, simulatedMs: Math.round(sum.simulatedMs), perMinute })}\n`)
})

Effect.runSync(main)
