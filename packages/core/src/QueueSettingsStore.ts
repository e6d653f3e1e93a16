import { Context, type Effect } from "effect"
import type { StoreUnavailable } from "./Errors.js"
import type { QueueName, QueueRecord } from "./QueueSettings.js"

export interface QueueFilter {
  readonly namespace?: string
  /** Queues after this one, `namespace|queue`: the last of the page before. */
  readonly after?: string
  /** 1 to `queuesLimitMax`. */
  readonly limit: number
}

export const queuesLimitMax = 500

/**
 * PORT. The durable truth about the settings of queues. Owners read them with `PartitionStore`. Adapters pass
 * `queueSettingsContract` in @orrery/testing.
 */
export class QueueSettingsStore extends Context.Tag("@orrery/core/QueueSettingsStore")<QueueSettingsStore, {
  /** `undefined`: nothing was ever said of it. */
  readonly find: (name: QueueName) => Effect.Effect<QueueRecord | undefined, StoreUnavailable>
  /** Queues that had a run or a setting, by namespace and name; those without settings at revision 0. */
  readonly list: (filter: QueueFilter) => Effect.Effect<ReadonlyArray<QueueRecord>, StoreUnavailable>
  /**
   * Stores the next revision, `record.revision`, if the one before it is the last; answers with it as stored, its time by the
   * database clock, or with `undefined` when another one is the last: nothing was written.
   */
  readonly save: (record: QueueRecord) => Effect.Effect<QueueRecord | undefined, StoreUnavailable>
}>() {}
