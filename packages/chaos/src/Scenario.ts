/** What is done to a cluster, as a scenario sees it. */
import type { Effect, Scope } from "effect"
import type { Setting, Stage } from "./Stage.js"

/** A promise that did not hold. `checker`: who saw it. */
export interface Violation {
  readonly checker: string
  readonly run?: string
  readonly what: string
}

export interface Scene extends Stage {
  /** How many events are asked for. */
  readonly times: number
  readonly isQuick: boolean
  /** Into the history: what is done now. */
  readonly fault: (what: string) => Effect.Effect<void>
  readonly healed: (what: string) => Effect.Effect<void>
  /**
   * One event: notes it, does it, and waits until every queue is served again. What the queues it is about went without an
   * answer counts as recovery; with `repair`, the time from its end on. An event about no queue under load is none to recover from.
   */
  readonly event: (what: string, event: Event) => Effect.Effect<void>
  /** A time to recover measured otherwise, ms. */
  readonly recovered: (ms: number) => void
  readonly violate: (violation: Violation) => void
  /** Told with the result. */
  readonly note: (name: string, value: number | string) => void
}

export interface Event {
  readonly inject: Effect.Effect<unknown, unknown>
  /** Before queues can be served again at all: the time counts from its end. */
  readonly repair?: Effect.Effect<unknown, unknown>
  /** The queues it is about: recovery is of these alone, and what all others suffer meanwhile is told apart (`Gaps`). */
  readonly of?: Effect.Effect<ReadonlySet<string>>
}

/** Longest time without an answer on any of the queues, ms, of one event each. `null`: there is no such queue. */
export interface Gaps {
  /** Queues that the event is about, from it until all are served again. */
  readonly its: number | null
  /** All others, in the same time: what the machine did to them, and the loss of the node that the client was asking. */
  readonly others: number | null
  /** All queues, in the two seconds before. */
  readonly before: number
}

export interface Scenario {
  readonly name: string
  /** In the catalogue of faults, as T01. */
  readonly catalogue: string
  /** One line. */
  readonly what: string
  readonly setting?: Setting
  /** Events, unless told otherwise; with `--quick` `quickTimes`. */
  readonly times: number
  readonly quickTimes: number
  /** Why it cannot be run here; nothing is started then. */
  readonly skipped?: string
  readonly play: (scene: Scene) => Effect.Effect<void, unknown, Scope.Scope>
  /** Looks at the whole when it is over, and the load has stopped. */
  readonly inspect?: (scene: Scene) => Effect.Effect<void>
}
