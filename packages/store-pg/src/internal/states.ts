import type { RunState } from "@orrery/core/RunState"

/** Codes of states in SQL, for good: `orrery.all_runs` and the partial indexes repeat them. */
export const names: ReadonlyArray<RunState> = [
  "blocked",
  "scheduled",
  "ready",
  "running",
  "retrying",
  "succeeded",
  "failed",
  "cancelled",
  "expired"
]

export const codes = Object.fromEntries(names.map((name, code) => [name, code])) as {
  readonly [State in RunState]: number
}
