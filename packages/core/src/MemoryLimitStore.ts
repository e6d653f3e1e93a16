/** Limits within one process: exact for what it does, and nothing for what others do. For one machine, and for tests. */
import { Clock, Effect, Layer } from "effect"
import { LimitBook, limitsMax } from "./LimitBook.js"
import { LimitStore, LimitsUnavailable } from "./LimitStore.js"

export { limitsMax } from "./LimitBook.js"

/** A store over a book. `now`: ms, that only grow. */
export const over = (book: LimitBook, now: Effect.Effect<number>): LimitStore["Type"] => {
  const ask = <A>(operation: string, decide: (now: number) => A | undefined): Effect.Effect<A, LimitsUnavailable> =>
    Effect.flatMap(now, (at) => {
      const answer = decide(at)
      return answer === undefined
        ? new LimitsUnavailable({ operation, reason: `${limitsMax} limits are in use, the most that may` })
        : Effect.succeed(answer)
    })
  return LimitStore.of({
    grant: (rule, request) => ask("grant", (at) => book.grant(rule, request, at)),
    acquire: (rule, holder) => ask("acquire", (at) => book.acquire(rule, holder, at)),
    renew: (rule, holder) => ask("renew", (at) => book.renew(rule, holder, at)),
    release: (rule, holder) => Effect.sync(() => book.release(rule, holder))
  })
}

export const make: Effect.Effect<LimitStore["Type"]> = Effect.sync(() =>
  over(new LimitBook(), Effect.map(Clock.currentTimeNanos, (now) => Number(now) / 1e6))
)

export const layer: Layer.Layer<LimitStore> = Layer.effect(LimitStore, make)
