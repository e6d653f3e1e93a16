/** What a workload is to the program that runs it: cases, each measured for one system at a time. */
import type { Effect, Scope } from "effect"
import type { Description } from "./Calls.js"
import type { Bench, MeasureFailed } from "./Stage.js"
import type { Better } from "./statistics.js"

/** One figure of one measurement. */
export interface Measured {
  /** Of the figure: that of the case, perhaps with a suffix (`W3`, `W3-ack`); with `@x` it is a point of a series. */
  readonly workload: string
  readonly value: number
  readonly unit: string
  readonly better: Better
  /** Shown beside the value. `atLeast`: the value is a bound, where the measurement gave up. */
  readonly details: Readonly<Record<string, number | string | boolean>>
}

export interface Case {
  readonly id: string
  readonly title: string
  /** Part of `--quick`. */
  readonly inQuick: boolean
  /** Longest that a peer may take for it, one round, s. What takes longer is told so. Default 300. */
  readonly withinS?: number
  /** Fewer rounds than asked for: for what takes long, or hardly varies. */
  readonly roundsMax?: number
  /**
   * Another case that is the same for this system, when there is one: its measurements count for both, if it was
   * measured in this run.
   */
  readonly sameAs?: (system: Description) => string | undefined
  /** Why this system is not measured, whatever it says of itself; asked before anything is started. */
  readonly skip?: (system: Description) => string | undefined
  readonly run: (
    bench: Bench,
    system: Description
  ) => Effect.Effect<ReadonlyArray<Measured>, MeasureFailed, Scope.Scope>
}

export interface Workload {
  /** As on the command line. */
  readonly id: string
  readonly title: string
  readonly cases: ReadonlyArray<Case>
}

/** `W2-two` is of W2. */
export const workloadOf = ({ id }: Pick<Case, "id">): string => id.split(/[-@]/)[0]!
