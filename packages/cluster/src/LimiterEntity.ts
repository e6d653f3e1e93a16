/**
 * Limits that span queues, in a cluster without Redis: kept in memory by limiter actors, one per partition of their names, on
 * whatever node has its shard. Calls are entity messages: owners of queues ask for many starts at a time.
 *
 * An actor that begins does not know what the one before has granted, so strict limits wait until that is over. One whose node may
 * be replaced by now (`mayAct`) grants nothing. So of two that both believe to be the one, at most one lets anything through.
 */
import { ClusterSchema, Entity, Sharding } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { LimitBook } from "@orrery/core/LimitBook"
import { LimitStore, LimitsUnavailable, type PermitRule } from "@orrery/core/LimitStore"
import * as MemoryLimitStore from "@orrery/core/MemoryLimitStore"
import { fraction } from "@orrery/core/Entry"
import { Duration, Effect, Layer, Schema } from "effect"
import { ClusterLimits } from "./ClusterLimits.js"
import { LockStorage } from "./LockStorage.js"
import { shardGroup } from "./QueueEntity.js"
import { SelfWatch } from "./SelfWatch.js"

/** Limits are spread over so many actors. */
const partitionCount = 16
/** Questions to one of them at once. */
const callsMax = 4_096
const askTimeout = "1 second"

const exactness = Schema.Literal("strict", "relaxed")
const Rate = Schema.Struct({
  name: Schema.String,
  limit: Schema.Number,
  perMs: Schema.Number,
  exactness,
  burst: Schema.Number
})
const Permit = Schema.Struct({ name: Schema.String, limit: Schema.Number, leaseMs: Schema.Number, exactness })

const Ask = Schema.Union(
  Schema.TaggedStruct("grant", {
    rule: Rate,
    min: Schema.Number,
    want: Schema.Number,
    validMs: Schema.Number
  }),
  Schema.TaggedStruct("acquire", { rule: Permit, holder: Schema.String }),
  Schema.TaggedStruct("renew", { rule: Permit, holder: Schema.String }),
  Schema.TaggedStruct("release", { rule: Permit, holder: Schema.String })
)
type Ask = typeof Ask.Type

/** Tokens; or 1 for a permit that is held. */
const Answer = Schema.Struct({ granted: Schema.Number, waitMs: Schema.Number })
type Answer = typeof Answer.Type

export const LimiterEntity = Entity.make("Limiter", [
  Rpc.make("Ask", { payload: { ask: Ask }, success: Answer, error: LimitsUnavailable })
]).annotate(ClusterSchema.ShardGroup, () => shardGroup).annotateRpcs(ClusterSchema.ClientTracingEnabled, false)

const decide = (store: LimitStore["Type"], ask: Ask): Effect.Effect<Answer, LimitsUnavailable> => {
  switch (ask._tag) {
    case "grant":
      return store.grant(ask.rule, ask)
    case "acquire":
      return Effect.map(
        store.acquire(ask.rule, ask.holder),
        ({ isHeld, waitMs }) => ({ granted: isHeld ? 1 : 0, waitMs })
      )
    case "renew":
      return Effect.map(store.renew(ask.rule, ask.holder), (isHeld) => ({ granted: isHeld ? 1 : 0, waitMs: 0 }))
    case "release":
      return Effect.as(store.release(ask.rule, ask.holder), { granted: 0, waitMs: 0 })
  }
}

const Entities = LimiterEntity.toLayer(
  Effect.gen(function*() {
    const { entityId } = yield* Entity.CurrentAddress
    const locks = yield* LockStorage
    const { mayAct } = yield* SelfWatch
    const sharding = yield* Sharding.Sharding
    const shard = sharding.getShardId(entityId, shardGroup)
    const now = () => performance.now()
    const store = MemoryLimitStore.over(new LimitBook(now()), Effect.sync(now))
    return {
      Ask: ({ payload: { ask } }) =>
        mayAct() && sharding.hasShardId(shard) && locks.holds(shard)
          ? decide(store, ask)
          : new LimitsUnavailable({ operation: ask._tag, reason: "its limiter is about to move" })
    }
  }),
  // What it remembers is all there is to it.
  { maxIdleTime: Duration.infinity, concurrency: callsMax, disableFatalDefects: true }
)

const Port = Layer.effect(
  ClusterLimits,
  Effect.gen(function*() {
    const client = yield* LimiterEntity.client
    const send = (name: string, ask: Ask): Effect.Effect<Answer, LimitsUnavailable> => {
      const unavailable = (reason: string) => new LimitsUnavailable({ operation: ask._tag, reason })
      return client(String(Math.floor(fraction(name, 0) * partitionCount))).Ask({ ask }).pipe(
        Effect.timeoutFail({ duration: askTimeout, onTimeout: () => unavailable("its limiter does not answer") }),
        Effect.catchTags({
          MailboxFull: () => unavailable("its limiter has as many questions as it may"),
          AlreadyProcessingMessage: () => unavailable("the question is under way"),
          PersistenceError: () => unavailable("the cluster's storage does not answer")
        })
      )
    }
    const held = (ask: "acquire" | "renew", rule: PermitRule, holder: string) =>
      Effect.map(
        send(rule.name, { _tag: ask, rule, holder }),
        ({ granted, waitMs }) => ({ isHeld: granted === 1, waitMs })
      )
    return LimitStore.of({
      grant: (rule, { min, validMs, want }) => send(rule.name, { _tag: "grant", rule, min, want, validMs }),
      acquire: (rule, holder) => held("acquire", rule, holder),
      renew: (rule, holder) => Effect.map(held("renew", rule, holder), ({ isHeld }) => isHeld),
      release: (rule, holder) => Effect.asVoid(send(rule.name, { _tag: "release", rule, holder }))
    })
  })
)

export const layer = Layer.provideMerge(Port, Entities)
