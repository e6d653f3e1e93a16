/** What applications and people do with queues, from anywhere: inside a node, or over the wire. */
import { Context, Effect, Schema } from "effect"
import { ClusterUnavailable, InvalidRequest, RevisionStale, type StoreUnavailable } from "./Errors.js"
import {
  checkCall,
  dividedProblem,
  type QueueCall,
  type QueueName,
  type QueueRecord,
  step,
  unset
} from "./QueueSettings.js"
import { listBytesMax } from "./Runs.js"
import { type QueueFilter, type QueueSettingsStore, queuesLimitMax } from "./QueueSettingsStore.js"

export const QueueError = Schema.Union(RevisionStale, InvalidRequest, ClusterUnavailable)
export type QueueError = typeof QueueError.Type

/**
 * PORT. An answer of `call` means that PostgreSQL has committed it, and that every owner of the queue that could be reached at
 * once has been told; the others look within 5 s, and before they take the queue over. Until then they go by what held before.
 */
export class Queues extends Context.Tag("@orrery/core/Queues")<Queues, {
  readonly call: (call: QueueCall) => Effect.Effect<QueueRecord, QueueError>
  /** Revision 0 for a queue of which nothing was said; there need not be such a queue. */
  readonly get: (name: QueueName) => Effect.Effect<QueueRecord, ClusterUnavailable>
  /** By namespace and name. Only an empty page is the end. */
  readonly list: (filter: QueueFilter) => Effect.Effect<ReadonlyArray<QueueRecord>, ClusterUnavailable>
}>() {}

export interface QueuesHost {
  readonly store: QueueSettingsStore["Type"]
  readonly partitionsOf: (name: QueueName) => number
  readonly now: Effect.Effect<number, StoreUnavailable>
  /** The settings have changed: whoever owns partitions of the queue shall know. Never fails. */
  readonly tell: (record: QueueRecord) => Effect.Effect<void>
}

/** Races with others that change the same settings, before a call is given up. */
const triesMax = 20

/** On a store, for those who can reach the owners. */
export const make = ({ now, partitionsOf, store, tell }: QueuesHost): Queues["Type"] => {
  const attempt = (call: QueueCall, left: number): Effect.Effect<QueueRecord, QueueError> =>
    Effect.gen(function*() {
      const found = yield* Effect.mapError(store.find(call), unavailable)
      const before = found ?? unset(call)
      const settings = yield* step(before.settings, call, yield* Effect.mapError(now, unavailable))
      // It holds already: an answer was lost, or others were first with the same.
      if (settings === before.settings) return before
      const { expected } = call
      if (expected !== undefined && expected !== before.revision) return yield* stale(call, expected, before.revision)
      const next: QueueRecord = { ...before, revision: before.revision + 1, changedBy: call.by, settings }
      const saved = yield* Effect.mapError(store.save(next), unavailable)
      if (saved !== undefined) return yield* Effect.as(tell(saved), saved)
      if (left > 0) return yield* attempt(call, left - 1)
      return yield* new ClusterUnavailable({
        operation: "change settings",
        reason: `${triesMax} others changed those of queue ${call.queue} first`
      })
    })
  return Queues.of({
    call: (call) =>
      Effect.suspend(() => {
        const problem = checkCall(call) ?? dividedProblem(call, partitionsOf(call))
        return problem === undefined ? attempt(call, triesMax) : Effect.fail(problem)
      }),
    get: (name) =>
      Effect.mapBoth(store.find(name), { onFailure: unavailable, onSuccess: (found) => found ?? unset(name) }),
    list: (filter) =>
      Effect.mapBoth(store.list({ ...filter, limit: Math.min(filter.limit, queuesLimitMax) }), {
        onFailure: unavailable,
        onSuccess: fittingIntoMessage
      })
  })
}

const stale = ({ namespace, queue }: QueueName, expected: number, actual: number) =>
  new RevisionStale({ namespace, queue, expected, actual })

const unavailable = (error: StoreUnavailable) =>
  new ClusterUnavailable({ operation: "settings of queues", reason: error.message })

/** As `Runs.list`: 8 MiB end a page, but it has at least one. */
const fittingIntoMessage = (page: ReadonlyArray<QueueRecord>): ReadonlyArray<QueueRecord> => {
  let left = listBytesMax
  return page.filter((record, index) => {
    left -= JSON.stringify(record).length
    return index === 0 || left >= 0
  })
}
