/** Flags of the `chaos` command. */
import { Args, Options } from "@effect/cli"
import { Option } from "effect"

const seedMax = 2 ** 31 - 1
const timesMax = 10_000
const loadMax = 50

/** One line for a number that means nothing. */
const within = (name: string, min: number, max: number) =>
  Options.filterMap(
    (value: number) => value >= min && value <= max ? Option.some(value) : Option.none(),
    `chaos: --${name} must be ${min} to ${max}`
  )

export const scenarios = Args.text({ name: "scenario" }).pipe(
  Args.withDescription("Names of scenarios; --list tells them. Without any: all, one after the other."),
  Args.repeated
)

export const seed = Options.integer("seed").pipe(
  within("seed", 0, seedMax),
  Options.withDescription("What is asked for and what is done, when, is drawn from it. Default: a random one, told."),
  Options.optional
)

export const times = Options.integer("times").pipe(
  within("times", 1, timesMax),
  Options.withDescription("Faults of each scenario. Default: a few, each scenario has its own number."),
  Options.optional
)

export const load = Options.integer("load").pipe(
  within("load", 1, loadMax),
  Options.withDescription(
    "Times as many runs in each request of the clients, as long as fewer than 4,000 wait. Default: 1. Above, the times "
      + "to recover say less."
  ),
  Options.withDefault(1)
)

export const quick = Options.boolean("quick").pipe(Options.withDescription("Fewer faults and shorter outages."))

export const json = Options.boolean("json").pipe(
  Options.withDescription(
    "One JSON object per scenario on standard output; with several, a last one over all of them. Progress goes to "
      + "standard error."
  )
)

export const list = Options.boolean("list").pipe(Options.withDescription("Only tell which scenarios there are."))

export const keep = Options.boolean("keep").pipe(
  Options.withDescription("Keep histories and logs also where no promise was broken.")
)
