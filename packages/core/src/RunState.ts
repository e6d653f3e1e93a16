import { Schema } from "effect"

/** Where a run is in its life. `ready` includes runs whose time has come but that no worker has taken. */
export const RunState = Schema.Literal(
  "blocked",
  "scheduled",
  "ready",
  "running",
  "retrying",
  "succeeded",
  "failed",
  "cancelled",
  "expired"
)
export type RunState = typeof RunState.Type

/** Every legal move; a state with no moves is final. Drawn in docs/run-lifecycle.md. */
export const moves: { readonly [From in RunState]: ReadonlyArray<RunState> } = {
  blocked: ["scheduled", "ready", "cancelled", "failed", "expired"],
  scheduled: ["ready", "running", "cancelled", "expired"],
  ready: ["running", "scheduled", "cancelled", "expired", "failed"],
  running: ["succeeded", "failed", "retrying", "scheduled", "ready", "cancelled", "expired"],
  retrying: ["ready", "running", "cancelled", "expired"],
  succeeded: [],
  failed: [],
  cancelled: [],
  expired: []
}

export type FinalState = "succeeded" | "failed" | "cancelled" | "expired"

/** The states in which a run waits for its time or for a worker. */
export type WaitingState = "scheduled" | "ready" | "retrying"

export const canMove = (from: RunState, to: RunState): boolean => moves[from].includes(to)

export const isFinal = (state: RunState): state is FinalState => moves[state].length === 0
