/**
 * Where one process asks for its part of a limit: at the store that all share, or, while that is gone and the limit is declared `open`,
 * at one of its own.
 */
import { type Clock, Effect } from "effect"
import { LimitNotGranted } from "./Errors.js"
import type { LimitStore } from "./LimitStore.js"

/** For so long after the store was found gone it is not asked, where `open`. */
const aloneMs = 1_000

export interface LimitSourceOptions {
  readonly rule: { readonly name: string }
  readonly whenGone: "closed" | "open"
  readonly store: LimitStore["Type"]
  /** Keeps the same limit for this process alone. */
  readonly alone: LimitStore["Type"]
  readonly clock: Clock.Clock
}

export class LimitSource {
  /** Why nobody is granted anything now. */
  obstacle: LimitNotGranted["reason"] = "limit"
  /** Monotonic, ms. */
  private aloneUntil = 0

  constructor(private readonly options: LimitSourceOptions) {}

  /** Asks once; `nothing` is the answer where neither can be asked. */
  ask<A, E>(from: (store: LimitStore["Type"]) => Effect.Effect<A, E>, nothing: A): Effect.Effect<A> {
    return Effect.suspend(() => {
      const { alone, store, whenGone } = this.options
      const byItself = Effect.orElseSucceed(from(alone), () => nothing)
      if (this.now() < this.aloneUntil) return byItself
      return from(store).pipe(
        Effect.tap(() => Effect.sync(() => this.obstacle = "limit")),
        Effect.catchAll(() => {
          this.obstacle = "unavailable"
          if (whenGone === "closed") return Effect.succeed(nothing)
          this.aloneUntil = this.now() + aloneMs
          return byItself
        })
      )
    })
  }

  /** Monotonic, ms. */
  now(): number {
    return Number(this.options.clock.unsafeCurrentTimeNanos()) / 1e6
  }

  refusal(reason: LimitNotGranted["reason"], detail: string): LimitNotGranted {
    return new LimitNotGranted({ limiter: this.options.rule.name, reason, detail })
  }
}
