import { Context, type Effect } from "effect"
import type { StoreUnavailable } from "./Errors.js"
import type { Expected, Tally } from "./Reconciliation.js"

/**
 * PORT. Counts what the store holds of a partition, to be compared with what its owner has in memory. Adapters pass
 * `runTallyContract` in @orrery/testing.
 */
export class RunTally extends Context.Tag("@orrery/core/RunTally")<RunTally, {
  /**
   * The runs of each line up to the edge that is given for it, and those running. A task that has ready runs and is not
   * among those given is counted from its beginning. No line is counted further than one beyond what is expected of it: that it
   * is too long is all that matters.
   */
  readonly count: (partitionId: number, expected: Expected) => Effect.Effect<Tally, StoreUnavailable>
}>() {}
