/** What a process has at hand of the limits it shares with others: who waits here, and tokens fetched for them. */
import { Context, Effect, FiberSet, Layer } from "effect"
import { InvalidRequest } from "./Errors.js"
import { LimitStore, type PermitRule, type RateRule } from "./LimitStore.js"
import * as MemoryLimitStore from "./MemoryLimitStore.js"
import { PermitLine } from "./PermitLine.js"
import { RateLine } from "./RateLine.js"

/** What happens when the store of limits cannot be asked: nothing is let through, or each process keeps the limit alone. */
export type WhenGone = "closed" | "open"

/** Limiters in use in a process. */
export const limitersMax = 10_000

export class Limits extends Context.Tag("@orrery/core/Limits")<Limits, {
  readonly rate: (rule: RateRule, whenGone: WhenGone) => Effect.Effect<RateLine, InvalidRequest>
  readonly permits: (rule: PermitRule, whenGone: WhenGone) => Effect.Effect<PermitLine, InvalidRequest>
}>() {}

const make = Effect.gen(function*() {
  const store = yield* LimitStore
  const alone = yield* MemoryLimitStore.make
  const clock = yield* Effect.clock
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const lines = new Map<string, RateLine | PermitLine>()

  const found = <A extends RateLine | PermitLine>(key: string, create: () => A): Effect.Effect<A, InvalidRequest> =>
    Effect.suspend(() => {
      const known = lines.get(key)
      // The key tells the kind.
      if (known !== undefined) return Effect.succeed(known as A)
      if (lines.size >= limitersMax) {
        return new InvalidRequest({
          field: "limiter",
          limit: `one of at most ${limitersMax} in a process`,
          actual: "another one"
        })
      }
      const created = create()
      lines.set(key, created)
      return Effect.succeed(created)
    })

  return Limits.of({
    rate: (rule, whenGone) =>
      found(
        `rate ${whenGone} ${JSON.stringify(rule)}`,
        () => new RateLine({ rule, whenGone, store, alone, clock, fork: (effect) => void fork(effect) })
      ),
    permits: (rule, whenGone) =>
      found(
        `permits ${whenGone} ${JSON.stringify(rule)}`,
        () => new PermitLine({ rule, whenGone, store, alone, clock })
      )
  })
})

/** On any store of limits. */
export const layer: Layer.Layer<Limits, never, LimitStore> = Layer.scoped(Limits, make)

/** Limits of this process alone. */
export const layerMemory: Layer.Layer<Limits> = Layer.provide(layer, MemoryLimitStore.layer)
