import { Context, Effect, Layer } from "effect"
import type { Outcome } from "./Run.js"
import type { RunId } from "./RunId.js"

/** What a handler knows of the attempt it runs. */
export class Attempt extends Context.Tag("@orrery/core/Attempt")<Attempt, {
  readonly runId: RunId
  /** Counted from 1. */
  readonly attempt: number
  /** `epoch.attempt`: pass it to side effects that can refuse an older one. */
  readonly fencingToken: string
  /** The same for all attempts of the run: pass it to side effects that can refuse a repeat. */
  readonly idempotencyKey: string
  /** Start-to-close timeout, ms; 0: none. */
  readonly timeoutMs: number
  /** Set by `completeInTransaction`: how the run has ended, durably, whatever its handler does from then on. */
  committed?: Outcome
}>() {}

/** Runs one attempt from encoded payload to outcome. Never fails; an interruption of it is the worker's to report. */
export type Handler = (payload: string) => Effect.Effect<Outcome, never, Attempt>

/** A handler and the services it was given besides `Attempt`. */
export interface Registered {
  readonly handler: Handler
  readonly services: Context.Context<never>
}

/** The tasks this process can run, by name. Filled by `Task.toLayer` while layers are built. */
export class Handlers extends Context.Tag("@orrery/core/Handlers")<Handlers, {
  /** Dies when the name is taken: two handlers for one task are a mistake in the program. */
  readonly register: (task: string, handler: Handler, services?: Context.Context<never>) => Effect.Effect<void>
  readonly find: (task: string) => Registered | undefined
  readonly names: () => ReadonlyArray<string>
}>() {}

export const layer: Layer.Layer<Handlers> = Layer.sync(Handlers, () => {
  const handlers = new Map<string, Registered>()
  return Handlers.of({
    register: (task, handler, services = Context.empty()) =>
      Effect.suspend(() => {
        if (handlers.has(task)) return Effect.dieMessage(`task ${task} has two handlers in this process`)
        handlers.set(task, { handler, services })
        return Effect.void
      }),
    find: (task) => handlers.get(task),
    names: () => [...handlers.keys()]
  })
})
