/** `npm run bench`: Orrery and its peers on the same work, side by side. */
import { Command } from "@effect/cli"
import { runCommand } from "@orrery/cli/runCommand"
import { Console, Data, Effect, Either, Option } from "effect"
import { createWriteStream, mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { ArgumentInvalid, systemsOf, workloadsOf } from "./Arguments.js"
import * as BenchPostgres from "./BenchPostgres.js"
import * as docsPage from "./docsPage.js"
import { verdict } from "./Figure.js"
import { machine } from "./machine.js"
import * as options from "./options.js"
import * as Result from "./Result.js"
import { isFailure, measureAll } from "./rounds.js"
import type { Bench, Sizes } from "./Stage.js"
import { oursId } from "./systems/index.js"
import * as Systems from "./systemsHere.js"
import * as tables from "./tables.js"
import { type Case, type Workload, workloadOf } from "./Workload.js"
import { quickWorkloads, usualWorkloads, workloads } from "./workloads/index.js"

const inRoot = (file: string): string => fileURLToPath(new URL(`../../../${file}`, import.meta.url))
const results = inRoot("packages/bench/results")
const logFile = inRoot(".orrery/bench/bench.log")
const roundsDefault = 3

interface Flags {
  readonly workloads: ReadonlyArray<string>
  readonly peers: Option.Option<string>
  readonly json: boolean
  readonly quick: boolean
  readonly rounds: Option.Option<number>
  readonly scale: number
  readonly seed: number
  readonly check: boolean
  readonly write: boolean
}

const say = (line: string) => Effect.sync(() => void process.stderr.write(`${line}\n`))

/** What the processes say, to look up what went wrong. */
const log = Effect.acquireRelease(
  Effect.sync(() => {
    mkdirSync(inRoot(".orrery/bench"), { recursive: true })
    return createWriteStream(logFile)
  }),
  (stream) => Effect.sync(() => stream.end())
)

const run = (flags: Flags) =>
  Effect.gen(function*() {
    const isQuick = flags.quick || flags.check
    const chosen = yield* workloadsOf(flags.workloads, workloads, isQuick ? quickWorkloads : usualWorkloads)
    const wanted = yield* systemsOf(Option.getOrUndefined(flags.peers), isQuick)
    const recorded = flags.check ? yield* recordOf(flags, chosen) : undefined
    const sizes: Sizes = { quick: isQuick, scale: flags.scale, seed: flags.seed }
    const stream = yield* log
    const onOutput = (text: string) => void stream.write(text)
    const at = new Date().toISOString()
    const here = yield* Systems.find(wanted, onOutput)
    yield* Effect.forEach(here.missing, (line) => say(line))
    const postgres = yield* BenchPostgres.start(inRoot(".orrery/bench/pg"))
    const settings = yield* BenchPostgres.requireDurable(postgres.url)
    const bench: Bench = { postgres, sizes, programs: here.programs, requireDurable: true, onOutput }
    const rounds = Option.getOrElse(flags.rounds, () => isQuick ? 1 : roundsDefault)
    const cases = chosen.flatMap((workload) => workload.cases).filter((one) => !isQuick || one.inQuick)
    const onProgress = (line: string) => void process.stderr.write(`${line}\n`)
    const measure = (some: ReadonlyArray<Case>) =>
      measureAll(bench, { cases: some, systems: here.systems, rounds, quietly: true, onProgress })
    const figures = yield* measure(cases)
    const result: Result.Result = {
      at,
      command: process.argv.slice(2).join(" "),
      sizes,
      rounds,
      machine: machine(),
      postgres: settings,
      ...(here.redis === undefined ? {} : { redis: here.redis }),
      systems: here.systems,
      figures
    }
    yield* Console.log(`${tables.conditions(result)}\n${tables.figureTables(figures)}`)
    if (flags.write) yield* write(result)
    const again = (lost: ReadonlyArray<string>) => {
      const of = new Set(lost.map((id) => workloadOf({ id })))
      return Effect.zipRight(
        say(`below two thirds of the record, measured again: ${lost.join(", ")}`),
        Effect.map(measure(cases.filter((one) => of.has(workloadOf(one)))), (found) => found.map(verdict))
      )
    }
    const checked = recorded === undefined ? [] : yield* Result.checkAgain(recorded, figures.map(verdict), again)
    yield* Effect.forEach(checked, (one) => Console.log(lineOf(one)))
    if (flags.json) yield* Effect.forEach(figures, (figure) => Console.log(JSON.stringify(verdict(figure))))
    const lost = checked.filter(({ holds }) => !holds).map(({ workload }) => workload)
    if (lost.length > 0) return yield* new RunFailed({ reason: `below two thirds of the record: ${lost.join(", ")}` })
    const failed = figures.filter(({ missing }) => isFailure(missing[oursId] ?? ""))
    if (failed.length > 0) {
      const names = failed.map(({ workload }) => workload).join(", ")
      return yield* new RunFailed({ reason: `Orrery was not measured in ${names}; see ${logFile}` })
    }
  }).pipe(Effect.scoped)

/** What to check against: the ratios of the chosen workloads, measured in the same way. */
const recordOf = ({ peers, scale }: Flags, chosen: ReadonlyArray<Workload>) => {
  const refuse = (reason: string) => Either.left(new ArgumentInvalid({ reason }))
  if (Option.isSome(peers)) return refuse("--check takes the peers that the record was made with: leave --peers out")
  const found = Result.readRecorded(results)
  if (found === undefined) return refuse("nothing is recorded to check against; run with --quick --write first")
  const recordedScale = found.scale ?? 1
  if (scale !== recordedScale) return refuse(`the record is of --scale ${recordedScale}, and --check of ${scale}`)
  const ids = chosen.map(({ id }) => id)
  const recorded = Result.recordedFor(found, ids)
  return Object.keys(recorded.ratios).length === 0
    ? refuse(`no ratio of ${ids.join(", ")} is recorded to check against`)
    : Either.right(recorded)
}

const write = (result: Result.Result) =>
  Effect.gen(function*() {
    const file = Result.save(results, result)
    docsPage.write(inRoot("docs"), Result.readAll(results))
    yield* say(`stored in ${file}; docs/benchmarks.md is made anew`)
  })

const lineOf = ({ holds, now, recorded, workload }: Result.Checked): string =>
  `check ${workload}: ${now === null ? "not measured" : `${now}×`}, recorded ${recorded}×: ${holds ? "ok" : "LOST"}`

/** The run came to its end, and something is wrong with what it found. */
class RunFailed extends Data.TaggedError("RunFailed")<{ readonly reason: string }> {
  override get message() {
    return `bench: ${this.reason}`
  }
}

const command = Command.make("bench", {
  workloads: options.workloads,
  peers: options.peers,
  json: options.json,
  quick: options.quick,
  rounds: options.rounds,
  scale: options.scale,
  seed: options.seed,
  check: options.check,
  write: options.write
}, run).pipe(
  Command.withDescription(
    "Measure Orrery and its peers on the same work, in turns, each in processes and a database of its own. Tables go to "
      + "standard output, progress to standard error. Starts a durable PostgreSQL in .orrery/bench, or uses DATABASE_URL."
  )
)

runCommand(command, { name: "bench" })
