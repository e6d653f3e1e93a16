/**
 * A queue declared in code: limits over all of its runs, beside those that tasks say.
 *
 * `reconcile` brings what the cluster has in line with what the code declares, as part of a deploy: a higher `version` replaces
 * a lower one, and any other changes nothing, so that a stale deploy, or an old node that starts once more, cannot undo a newer
 * one. What people say at run time (`orrery queues set-limit`) goes before it.
 */
import { Duration, Effect, Option } from "effect"
import { InvalidRequest } from "./Errors.js"
import { checkCall, type NamedLimit, type QueueCall, type QueueName } from "./QueueSettings.js"
import { type QueueError, Queues } from "./Queues.js"
import type { QueueRetention } from "./Retention.js"
import type { RateAlgorithm } from "./RunKeys.js"
import * as TaskLimiters from "./TaskLimiters.js"
import type { StartLimiter } from "./TaskLimiters.js"

export interface QueueRateOption {
  /** Starts in each period, 1 to 10,000. */
  readonly limit: number
  /** 1 ms to 1 day. */
  readonly per: Duration.DurationInput
  /** Default "window". */
  readonly algorithm?: RateAlgorithm
}

export interface QueueOptions {
  /** Grows with each change of the declaration, from 1. */
  readonly version: number
  /** Default "default". */
  readonly namespace?: string
  /** Attempts of all its tasks at once, 1 to 100,000. Divided among its partitions, if it has several. */
  readonly concurrency?: number
  /** Starts of all its tasks. Divided as `concurrency`. */
  readonly rate?: QueueRateOption
  /**
   * Runs that are not final, of whatever task, 1 to 100,000: with as many none comes in (`QueueFull`). Instead of what its tasks say.
   * Divided as `concurrency`.
   */
  readonly maxDepth?: number
  /** The same of each fairness key (`QuotaExceeded`). Only with `maxDepth`, and not above it. */
  readonly maxDepthPerTenant?: number
  /** Instead of what tasks say of limits with these names. At most 100. */
  readonly limits?: ReadonlyArray<NamedLimit>
  /**
   * Limits shared with other queues: a run of whatever task starts when each of them, and of those of its task, has room. At most 4,
   * each of another name, and of a `cost` that is a number. Not divided among the partitions: the limit is exact over all.
   */
  readonly limiters?: StartLimiter<void> | ReadonlyArray<StartLimiter<void>>
  /**
   * How long its runs stay readable after their end, by how they ended: `{ succeeded: "1 day", failed: "90 days" }`. One of
   * `retentionPeriods`. What is left out is as the nodes say for all queues (`ORRERY_RETENTION`).
   */
  readonly retention?: QueueRetention
}

export interface Queue extends QueueName {
  /** What is sent to the cluster. */
  readonly declaration: QueueCall
}

/** Defines a queue. Throws `InvalidRequest` on a bad option, naming it: a wrong definition is a mistake in the program. */
export const make = (name: string, options: QueueOptions): Queue => {
  const { concurrency, limits, maxDepth, maxDepthPerTenant, namespace = "default", rate, retention, version } = options
  if (maxDepthPerTenant !== undefined && maxDepth === undefined) {
    throw new InvalidRequest({
      field: "maxDepthPerTenant",
      limit: "absent without maxDepth",
      actual: String(maxDepthPerTenant)
    })
  }
  const { costsOf, terms: limiters } = TaskLimiters.make<void>(options)
  if (costsOf !== undefined) {
    throw new InvalidRequest({ field: "limiters", limit: "each of a cost that is a number", actual: "a function" })
  }
  const declaration: QueueCall = {
    _tag: "declare",
    namespace,
    queue: name,
    by: `version ${version} of the code`,
    version,
    limits: {
      ...concurrency === undefined ? {} : { concurrency },
      ...rate === undefined ? {} : { rate: rateOf(rate) },
      ...maxDepth === undefined
        ? {}
        : { backlog: { maxDepth, ...maxDepthPerTenant === undefined ? {} : { maxDepthPerTenant } } },
      ...limiters === undefined ? {} : { limiters },
      ...limits === undefined ? {} : { limits }
    },
    ...retention === undefined ? {} : { retention }
  }
  const problem = checkCall(declaration)
  if (problem !== undefined) throw problem
  return { namespace, queue: name, declaration }
}

/** Declares the queues to the cluster. May be repeated. */
export const reconcile = (queues: ReadonlyArray<Queue>): Effect.Effect<void, QueueError, Queues> =>
  Effect.flatMap(
    Queues,
    ({ call }) => Effect.forEach(queues, ({ declaration }) => call(declaration), { discard: true, concurrency: 16 })
  )

const rateOf = ({ algorithm, limit, per }: QueueRateOption) => {
  const period = Option.getOrUndefined(Duration.decodeUnknown(per))
  if (period === undefined) throw new InvalidRequest({ field: "rate.per", limit: "a duration", actual: String(per) })
  const perMs = Duration.toMillis(period)
  return { limit, perMs, ...algorithm === undefined ? {} : { algorithm } }
}
