/**
 * Hints that runs of a queue have changed, for those who watch from anywhere. The store is the truth: a hint may be lost,
 * doubled, late or forged. What is promised is that a watcher learns when it may have missed some.
 */
import { Context, Effect, type Scope, Stream } from "effect"
import type { RunId } from "./RunId.js"
import type { RunState } from "./RunState.js"

export interface QueueName {
  readonly namespace: string
  readonly queue: string
}

/** A run and the state that was committed. By now it may have another. */
export interface RunEvent {
  readonly id: RunId
  readonly state: RunState
  /** Its state is as it was: it has told something (`RunNotes`). */
  readonly isProgress?: true
}

/** What a watcher is told. `cursor`: where a later watch can go on, opaque, at most `cursorLengthMax` characters. */
export type Watched =
  | { readonly _tag: "events"; readonly events: ReadonlyArray<RunEvent>; readonly cursor: string }
  /** Something may have been missed until now: read the rows. Nothing is missed after it without another gap. */
  | { readonly _tag: "gap"; readonly cursor: string }

export const cursorLengthMax = 64
/** Changes of one commit told one by one; of a larger one only that there was one (`gap`). */
export const eventsMax = 500
/** What a watcher may leave unread; then it gets one `gap` instead. */
export const unreadMax = 256
/** Commits per queue that a later watch can still be told of, about. */
export const framesKept = 1_000

export interface WatchOptions {
  /** Of an earlier watch, also on another node: goes on where that stood, or begins with `gap` when that is not possible. */
  readonly after?: string
}

/** The publishing side of one queue. Costs next to nothing while nobody watches it. */
export interface QueueSignal {
  /**
   * After a commit, never before. Never waits, never throws. `events` is asked only when somebody watches; an empty list is
   * told to nobody.
   */
  readonly publish: (events: () => ReadonlyArray<RunEvent>) => void
}

/** How the connection to others is, as shown to people. */
export interface SignalsHealth {
  readonly kind: string
  readonly isUp: boolean
  readonly detail: string
}

export interface SignalsService {
  readonly queue: (name: QueueName) => QueueSignal
  /**
   * Tells of a queue until the scope closes; begins with `gap` unless it goes on after a cursor. Never fails and never
   * ends: without its connection it tells `gap` every `pollMs`, so that reading rows takes the place of hints.
   */
  readonly watch: (name: QueueName, options?: WatchOptions) => Effect.Effect<Stream.Stream<Watched>, never, Scope.Scope>
  /** `undefined`: there is no connection that could be lost. */
  readonly health: () => SignalsHealth | undefined
  /**
   * Somebody may publish what is not heard, says who knows it by another way: for twice `pollMs` watchers are told `gap` every
   * `pollMs`, at once the first time.
   */
  readonly doubt: () => void
}

const silent: QueueSignal = { publish: () => undefined }

/** Pause between two gaps where nothing else tells of changes, ms: with what a look takes it stays below a second. */
export const pollMs = 800

/** Nobody is told; watchers poll. */
export const none: SignalsService = {
  queue: () => silent,
  watch: () =>
    Effect.succeed(
      Stream.concat(Stream.succeed(0), Stream.repeatEffect(Effect.as(Effect.sleep(pollMs), 0))).pipe(
        Stream.map((): Watched => ({ _tag: "gap", cursor: "" }))
      )
    ),
  health: () => undefined,
  doubt: () => undefined
}

/**
 * PORT. Adapters pass `signalsContract` in @orrery/testing. Where none is given there are no hints, and everything else
 * works.
 */
export class Signals extends Context.Reference<Signals>()("@orrery/core/Signals", {
  defaultValue: (): SignalsService => none
}) {}

/** `|` cannot be part of a name. */
export const queueKey = ({ namespace, queue }: QueueName): string => `${namespace}|${queue}`

/** The changes of a queue, until the scope closes. */
export const watch = (name: QueueName, options: WatchOptions = {}): Stream.Stream<Watched> =>
  Stream.unwrapScoped(Effect.flatMap(Signals, (signals) => signals.watch(name, options)))
