/** `npm run chaos`: real processes under fire, and whether the promises held. */
import { Command } from "@effect/cli"
import { runCommand } from "@orrery/cli/runCommand"
import { Console, Data, Effect, Option } from "effect"
import { randomInt } from "node:crypto"
import { mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { scenariosOf } from "./Arguments.js"
import * as options from "./options.js"
import { play } from "./play.js"
import * as Postgres from "./Postgres.js"
import * as Result from "./Result.js"
import type { Scenario } from "./Scenario.js"
import { scenarios } from "./scenarios/index.js"

const folder = fileURLToPath(new URL("../../../.orrery/chaos", import.meta.url))
const seedMax = 2 ** 31

interface Flags {
  readonly scenarios: ReadonlyArray<string>
  readonly seed: Option.Option<number>
  readonly times: Option.Option<number>
  readonly load: number
  readonly quick: boolean
  readonly json: boolean
  readonly keep: boolean
  readonly list: boolean
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

const run = (flags: Flags) =>
  Effect.gen(function*() {
    const chosen = yield* scenariosOf(flags.scenarios, scenarios)
    if (flags.list) return yield* Effect.forEach(chosen, (each) => Console.log(lineOf(each)), { discard: true })
    const seed = Option.getOrElse(flags.seed, () => randomInt(seedMax))
    mkdirSync(folder, { recursive: true })
    say(`seed ${seed}`)
    const postgres = yield* Postgres.start(folder)
    const results: Array<Result.Result> = []
    if (!flags.json) yield* Console.log(Result.tableHead)
    for (const scenario of chosen) {
      const result = yield* play(scenario, {
        seed,
        load: flags.load,
        isQuick: flags.quick,
        keep: flags.keep,
        onProgress: say,
        postgres,
        folder,
        ...(Option.isSome(flags.times) ? { times: flags.times.value } : {})
      })
      results.push(result)
      yield* Console.log(flags.json ? JSON.stringify(result) : Result.tableRow(result))
      for (const { checker, run, what } of flags.json ? [] : result.violations) {
        yield* Console.log(`  ${checker}${run === undefined ? "" : ` ${run}`}: ${what}`)
      }
    }
    if (flags.json && results.length > 1) yield* Console.log(JSON.stringify(Result.summary(seed, results)))
    const bad = results.filter((result) => !Result.isGood(result))
    if (bad.length > 0) return yield* new PromiseBroken({ scenarios: bad.map(({ scenario }) => scenario), seed })
  }).pipe(Effect.scoped)

const lineOf = ({ catalogue, name, skipped, what }: Scenario): string =>
  `${name.padEnd(20)} ${catalogue.padEnd(9)} ${what}${skipped === undefined ? "" : ` (skipped: ${skipped})`}`

class PromiseBroken extends Data.TaggedError("PromiseBroken")<{
  readonly scenarios: ReadonlyArray<string>
  readonly seed: number
}> {
  override get message() {
    return `chaos: a promise was broken in ${this.scenarios.join(", ")}; seed ${this.seed}; histories are in ${folder}`
  }
}

const command = Command.make("chaos", {
  scenarios: options.scenarios,
  seed: options.seed,
  times: options.times,
  load: options.load,
  quick: options.quick,
  json: options.json,
  keep: options.keep,
  list: options.list
}, run).pipe(
  Command.withDescription(
    "Kill, freeze, cut off and confuse the processes of a cluster under load, and check afterwards that every promise "
      + "held. Starts all it needs, in .orrery/chaos. Exit code 0 only if nothing was broken."
  )
)

runCommand(command, {
  name: "chaos",
  // Told to: node's own end waits for the handle of each socket, and turns in a circle for one that a proxy has reset
  // while it was half closed (seen with 20.20, in `partition-node`).
  exit: (code) => process.exit(code)
})
