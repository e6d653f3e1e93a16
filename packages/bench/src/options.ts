/** Flags of the `bench` command. */
import { Args, Options } from "@effect/cli"
import { Option } from "effect"

/** One line for a number that means nothing. */
const within = (name: string, holds: (value: number) => boolean, bounds: string) =>
  Options.filterMap(
    (value: number) => holds(value) ? Option.some(value) : Option.none(),
    `bench: --${name} must be ${bounds}`
  )

export const workloads = Args.text({ name: "workload" }).pipe(
  Args.withDescription("W1 to W14, or scale. Without any: W1 to W14; with --quick: W1, W2, W3 and W5."),
  Args.repeated
)

export const peers = Options.text("peers").pipe(
  Options.withPseudoName("ID,..."),
  Options.withDescription(
    "Systems to compare with: all, none, ids like graphile:batch, or graphile for its variants. Default: all; with "
      + "--quick: graphile-worker, pg-boss, and BullMQ with AOF. Orrery always takes part."
  ),
  Options.optional
)

export const json = Options.boolean("json").pipe(
  Options.withDescription("End with one JSON object per figure: workload, unit, ours, bestPeer, best, ratio, all.")
)

export const quick = Options.boolean("quick").pipe(
  Options.withDescription("Smaller sizes and one round: under 10 minutes on two cores.")
)

export const rounds = Options.integer("rounds").pipe(
  within("rounds", (value) => value >= 1 && value <= 100, "1 to 100"),
  Options.withDescription("How often each system is measured, in turns. Default: 3; with --quick: 1."),
  Options.optional
)

export const scale = Options.float("scale").pipe(
  within("scale", (value) => value > 0 && value <= 100, "above 0, at most 100"),
  Options.withDescription("Multiplies numbers of jobs and shortens long waits: 0.1 for a try. Default: 1."),
  Options.withDefault(1)
)

export const seed = Options.integer("seed").pipe(
  within("seed", (value) => value >= 0, "0 or more"),
  Options.withDescription("Of the payloads' filler, and which system goes first. Default: 1."),
  Options.withDefault(1)
)

export const check = Options.boolean("check").pipe(
  Options.withDescription(
    "Compare the ratios of a quick run with the recorded ones (packages/bench/results/recorded.json); exit 1 when one "
      + "is below two thirds."
  )
)

export const write = Options.boolean("write").pipe(
  Options.withDescription(
    "Store the result in packages/bench/results and make the tables and plots of docs/benchmarks.md anew. A quick run "
      + "is also recorded for --check."
  )
)
