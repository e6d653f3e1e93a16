/**
 * Limits that span queues, in a cluster without Redis: kept in memory by limiter actors, one per partition of their names, on
 * whatever node has its shard. Calls are entity messages: owners of queues ask for many starts at a time.
 *
 * An actor that begins does not know what the one before has granted, so strict limits wait until that is over. One whose node may
 * be replaced by now (`mayAct`) grants nothing. So of two that both believe to be the one, at most one lets anything through.
 */
import { ClusterSchema, Entity, Sharding } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { fraction } from "@orrery/core/Entry"
import * as LimitAsk from "@orrery/core/LimitAsk"
import { LimitBook } from "@orrery/core/LimitBook"
import { LimitsUnavailable } from "@orrery/core/LimitStore"
import * as MemoryLimitStore from "@orrery/core/MemoryLimitStore"
import { Duration, Effect, Layer } from "effect"
import { ClusterLimits } from "./ClusterLimits.js"
import { LockStorage } from "./LockStorage.js"
import { shardGroup } from "./QueueEntity.js"
import { SelfWatch } from "./SelfWatch.js"

/** Limits are spread over so many actors. */
const partitionCount = 16
/** Questions to one of them at once. */
const callsMax = 4_096
const askTimeout = "1 second"

export const LimiterEntity = Entity.make("Limiter", [
  Rpc.make("Ask", { payload: { ask: LimitAsk.LimitAsk }, success: LimitAsk.LimitAnswer, error: LimitsUnavailable })
]).annotate(ClusterSchema.ShardGroup, () => shardGroup).annotateRpcs(ClusterSchema.ClientTracingEnabled, false)

/**
 * The books of a node. Since it has a shard only its own actor can have granted anything there: the first of that time knows that
 * nothing was. One that comes after it does not.
 */
export const makeBooks = () => {
  const begun = new Map<string, number>()
  return (actor: string, heldSince: number | undefined, now: number): LimitBook => {
    const isFirst = heldSince !== undefined && begun.get(actor) !== heldSince
    if (heldSince !== undefined) begun.set(actor, heldSince)
    return new LimitBook(isFirst ? heldSince : now)
  }
}

const Entities = Layer.suspend(() => {
  const bookOf = makeBooks()
  return LimiterEntity.toLayer(
    Effect.gen(function*() {
      const { entityId } = yield* Entity.CurrentAddress
      const locks = yield* LockStorage
      const { mayAct } = yield* SelfWatch
      const sharding = yield* Sharding.Sharding
      const shard = sharding.getShardId(entityId, shardGroup)
      const now = () => performance.now()
      const store = MemoryLimitStore.over(bookOf(entityId, locks.heldSince(shard), now()), Effect.sync(now))
      return {
        Ask: ({ payload: { ask } }) =>
          mayAct() && sharding.hasShardId(shard) && locks.holds(shard)
            ? LimitAsk.answer(store, ask)
            : new LimitsUnavailable({ operation: ask._tag, reason: "its limiter is about to move" })
      }
    }),
    // What it remembers is all there is to it.
    { maxIdleTime: Duration.infinity, concurrency: callsMax, disableFatalDefects: true }
  )
})

const Port = Layer.effect(
  ClusterLimits,
  Effect.map(LimiterEntity.client, (client) =>
    LimitAsk.over((ask) => {
      const unavailable = (reason: string) => new LimitsUnavailable({ operation: ask._tag, reason })
      return client(String(Math.floor(fraction(ask.rule.name, 0) * partitionCount))).Ask({ ask }).pipe(
        // Also where a handler gives its permit back while it is interrupted: it must not wait for ever.
        Effect.interruptible,
        Effect.timeoutFail({ duration: askTimeout, onTimeout: () => unavailable("its limiter does not answer") }),
        Effect.catchTags({
          MailboxFull: () => unavailable("its limiter has as many questions as it may"),
          AlreadyProcessingMessage: () => unavailable("the question is under way"),
          PersistenceError: () => unavailable("the cluster's storage does not answer")
        })
      )
    }))
)

export const layer = Layer.provideMerge(Port, Entities)
