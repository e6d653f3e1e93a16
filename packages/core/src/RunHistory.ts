import { Context, type Effect } from "effect"
import { InvalidRequest, type StoreUnavailable } from "./Errors.js"
import type { RunId } from "./RunId.js"
import { listLimitMax } from "./Runs.js"

/**
 * PORT. Takes final runs away. Nothing is decided by them any more, so no owner is asked, and nothing is fenced. Adapters pass
 * `runHistoryContract` in @orrery/testing.
 */
export class RunHistory extends Context.Tag("@orrery/core/RunHistory")<RunHistory, {
  /**
   * Deletes those of the runs that are final, with what they have told; answers how many. One that is not final, or not
   * there, is left alone. May be repeated. The rows of identity keys stay.
   */
  readonly delete: (ids: ReadonlyArray<RunId>) => Effect.Effect<number, StoreUnavailable>
}>() {}

/** Of one call. */
export const idsProblem = (ids: ReadonlyArray<RunId>): InvalidRequest | undefined =>
  ids.length <= listLimitMax
    ? undefined
    : new InvalidRequest({ field: "ids", limit: `at most ${listLimitMax}`, actual: String(ids.length) })
