import { Context, Effect, type Exit, Layer, type Option } from "effect"
import type { Outcome } from "./Run.js"
import type { RunId } from "./RunId.js"

/** What a handler's worker keeps for it, in texts that are encoded already. `TaskAttempt` is the typed form. */
export interface AttemptNotes {
  /** JSON text. */
  readonly progress: (json: string) => void
  /** Answers once it is durable; never, when the attempt is no longer the run's. */
  readonly saveCheckpoint: (json: string) => Effect.Effect<void>
  /** What an earlier attempt of the run saved last. */
  readonly loadCheckpoint: Effect.Effect<Option.Option<string>>
}

/** What a handler knows of the attempt it runs, and may tell while it does. */
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
  committed?: Outcome | undefined
  /**
   * Tells the worker that the handler is alive: its `heartbeatTimeout` begins anew. Costs next to nothing and never waits;
   * without a `heartbeatTimeout` it does nothing.
   */
  readonly heartbeat: Effect.Effect<void>
  /** When the attempt is interrupted if it has not ended, ms since 1970 by this machine's clock; `undefined`: never. */
  readonly deadline: number | undefined
  /**
   * How far it is, 0 to 100; any other number is a defect. Does not wait: the last value of a second is kept, and the
   * very last before the outcome is.
   */
  readonly progress: (percent: number) => Effect.Effect<void>
  /**
   * Keeps a line with the run. Does not wait. At most 50 lines and 16 Ki characters a second, the rest is cut and counted in a
   * line of its own; of a run the newest 200 lines and 32 Ki characters stay.
   */
  readonly log: (line: string) => Effect.Effect<void>
  readonly notes: AttemptNotes
}>() {}

/** Runs one attempt from encoded payload to outcome. Never fails; an interruption of it is the worker's to report. */
export type Handler = (payload: string, attempt: Attempt["Type"]) => Effect.Effect<Outcome, never, Attempt>

/** A handler and the services it was given besides `Attempt`. */
export interface Registered {
  readonly handler: Handler
  readonly services: Context.Context<never>
  /** Of the task. */
  readonly namespace: string
  /** Longest silence between two heartbeats, ms; `undefined`: none are expected. */
  readonly heartbeatMs: number | undefined
  /** Of its worker that an attempt takes, as the task of this process says. What counts is what the run says. */
  readonly slots: number
  /** What an attempt reports whose handler has ended so. For tests that make one fail. */
  readonly conclude: ((exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Outcome, never, Attempt>) | undefined
}

/** The tasks this process can run, by name. Filled by `Task.toLayer` while layers are built. */
export class Handlers extends Context.Tag("@orrery/core/Handlers")<Handlers, {
  /** Dies when the name is taken: two handlers for one task are a mistake in the program. */
  readonly register: (
    task: string,
    handler: Handler,
    services?: Context.Context<never>,
    heartbeatMs?: number,
    about?: Partial<Pick<Registered, "conclude" | "namespace" | "slots">>
  ) => Effect.Effect<void>
  readonly find: (task: string) => Registered | undefined
  readonly names: () => ReadonlyArray<string>
}>() {}

export const layer: Layer.Layer<Handlers> = Layer.sync(Handlers, () => {
  const handlers = new Map<string, Registered>()
  return Handlers.of({
    register: (task, handler, services = Context.empty(), heartbeatMs, about = {}) =>
      Effect.suspend(() => {
        if (handlers.has(task)) return Effect.dieMessage(`task ${task} has two handlers in this process`)
        handlers.set(task, {
          handler,
          services,
          heartbeatMs,
          slots: about.slots ?? 1,
          conclude: about.conclude,
          namespace: about.namespace ?? "default"
        })
        return Effect.void
      }),
    find: (task) => handlers.get(task),
    names: () => [...handlers.keys()]
  })
})
