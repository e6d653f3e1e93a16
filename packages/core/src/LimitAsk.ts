/** What the keeper of a limit is asked where it is in another process: `LimitStore` in messages. */
import { Effect, Schema } from "effect"
import { permitsMax, rateMs, tokensMax } from "./LimiterTerms.js"
import { LimitStore, type LimitsUnavailable, type PermitRule } from "./LimitStore.js"
import { Name } from "./Name.js"

/** A partition, a rule and a number; or a random id. */
const holderLengthMax = 600
/** Leases of permits are those of workers and more. */
const leaseMsMax = rateMs.relaxedMax

const exactness = Schema.Literal("strict", "relaxed")
const Tokens = Schema.Int.pipe(Schema.between(1, tokensMax))
const Ms = Schema.Number.pipe(Schema.between(0, rateMs.relaxedMax))
const Holder = Schema.String.pipe(Schema.maxLength(holderLengthMax))

const Rate = Schema.Struct({ name: Name, limit: Tokens, perMs: Ms, exactness, burst: Tokens })
const Permit = Schema.Struct({
  name: Name,
  limit: Schema.Int.pipe(Schema.between(1, permitsMax)),
  leaseMs: Schema.Number.pipe(Schema.between(1, leaseMsMax)),
  exactness
})

/** One question. `want` and `validMs` as in `RateRequest`. */
export const LimitAsk = Schema.Union(
  Schema.TaggedStruct("grant", { rule: Rate, min: Tokens, want: Tokens, validMs: Ms }),
  Schema.TaggedStruct("acquire", { rule: Permit, holder: Holder }),
  Schema.TaggedStruct("renew", { rule: Permit, holder: Holder }),
  Schema.TaggedStruct("release", { rule: Permit, holder: Holder })
)
export type LimitAsk = typeof LimitAsk.Type

/** Tokens; or 1 for a permit that is held. */
export const LimitAnswer = Schema.Struct({ granted: Schema.Number, waitMs: Schema.Number })
export type LimitAnswer = typeof LimitAnswer.Type

/** The answer of a store that is here. */
export const answer = (store: LimitStore["Type"], ask: LimitAsk): Effect.Effect<LimitAnswer, LimitsUnavailable> => {
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

/** A store that is elsewhere. */
export const over = (send: (ask: LimitAsk) => Effect.Effect<LimitAnswer, LimitsUnavailable>): LimitStore["Type"] => {
  const held = (ask: "acquire" | "renew", rule: PermitRule, holder: string) =>
    Effect.map(send({ _tag: ask, rule, holder }), ({ granted, waitMs }) => ({ isHeld: granted === 1, waitMs }))
  return LimitStore.of({
    grant: (rule, { min, validMs, want }) => send({ _tag: "grant", rule, min, want, validMs }),
    acquire: (rule, holder) => held("acquire", rule, holder),
    renew: (rule, holder) => Effect.map(held("renew", rule, holder), ({ isHeld }) => isHeld),
    release: (rule, holder) => Effect.asVoid(send({ _tag: "release", rule, holder }))
  })
}
