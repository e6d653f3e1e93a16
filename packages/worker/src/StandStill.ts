/**
 * Whether the process stood still: it was frozen or suspended, or a handler kept its thread. What it reads after that may be
 * long past, as an assignment by an owner that has been replaced meanwhile, and whose heir has given the run to another worker.
 * So nothing begins then before its node has answered a question of after it: by that time all that others have said is read too.
 */
import { Effect, type Scope } from "effect"

/** Without a turn for so long, ms. An heir waits twice as long for those who hold something (`adoptionGraceMs`). */
const stoodMs = 1_000
const lookEveryMs = stoodMs / 2

export class StandStill {
  private turnAt = performance.now()
  private endedAt = -Infinity

  /** Monotonic, ms: when it last went on after one. To be asked before anything is believed: then this is the first turn after it. */
  lastEnd(): number {
    const now = performance.now()
    if (now - this.turnAt > stoodMs) this.endedAt = now
    this.turnAt = now
    return this.endedAt
  }
}

/** Looks until the scope closes. */
export const make: Effect.Effect<StandStill, never, Scope.Scope> = Effect.suspend(() => {
  const stood = new StandStill()
  return Effect.sync(() => stood.lastEnd()).pipe(
    Effect.delay(lookEveryMs),
    Effect.forever,
    Effect.forkScoped,
    Effect.as(stood)
  )
})
