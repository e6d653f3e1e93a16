/**
 * The services of one attempt: those of its handler, and `Attempt`. `Context.add` would copy the map of all services for
 * every attempt (2.7 of the 17 KB that a no-op run left as garbage); this one only looks in two places.
 */
import { Attempt } from "@orrery/core/Handlers"
import { Context } from "effect"

/** A map with one more entry than another one that is never changed. What copies or lists it sees one plain map. */
class Extended extends Map<string, unknown> {
  constructor(private readonly base: ReadonlyMap<string, unknown>, private readonly attempt: unknown) {
    super()
  }
  override get(key: string): unknown {
    return key === Attempt.key ? this.attempt : this.base.get(key)
  }
  override has(key: string): boolean {
    return key === Attempt.key || this.base.has(key)
  }
  override get size(): number {
    return this.base.size + (this.base.has(Attempt.key) ? 0 : 1)
  }
  override entries() {
    return this.merged().entries()
  }
  override keys() {
    return this.merged().keys()
  }
  override values() {
    return this.merged().values()
  }
  override forEach(use: (value: unknown, key: string, map: Map<string, unknown>) => void): void {
    this.merged().forEach(use)
  }
  override [Symbol.iterator]() {
    return this.entries()
  }
  private merged(): Map<string, unknown> {
    return new Map(this.base).set(Attempt.key, this.attempt)
  }
}

export const attemptContext = (services: Context.Context<never>, attempt: Attempt["Type"]): Context.Context<Attempt> =>
  Context.unsafeMake(new Extended(services.unsafeMap, attempt))
