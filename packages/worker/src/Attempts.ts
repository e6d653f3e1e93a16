/**
 * The attempts a worker holds: from the assignment until the owner has answered for the outcome. One that finds its
 * node's share of the slots in use waits in `ready` and starts when one of the share is free.
 *
 * Plain data and synchronous functions; all of them run on one thread, so a step is never seen half done. Handlers run
 * in root fibers of their own, neither children of the fiber that delivered the assignment nor of the session: a lost
 * node must not interrupt user code.
 */
import type { Attempt, Handler, Handlers } from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { tags } from "@orrery/core/RunTimes"
import type { Assignment, AttemptRef, ToWorker } from "@orrery/core/WorkerProtocol"
import { Cause, Effect, Exit, type Fiber, FiberId, Runtime } from "effect"
import * as Ahead from "./Ahead.js"
import { attemptContext } from "./attemptContext.js"
import { attemptSpan } from "./attemptSpan.js"
import { type Binding, leaseEnds } from "./Binding.js"
import type { Notes } from "./Notes.js"
import { RunningAttempt } from "./RunningAttempt.js"
import type { StandStill } from "./StandStill.js"

/** Why the worker interrupts a handler. */
type StopReason =
  /** The owner asked for it. */
  | "cancel"
  /** Start-to-close is over. */
  | "timeout"
  /** No heartbeat for too long. */
  | "silence"
  /** The worker stops, or may no longer count on its lease. */
  | "interrupt"
  /** The owner has given the attempt up: whatever becomes of it, nobody wants to know. */
  | "abandon"

export interface Held {
  readonly key: string
  /** It takes so many. */
  readonly slots: number
  readonly assignment: Assignment
  /** Where the outcome goes. A closed one: nowhere, until a node says `owned`. */
  binding: Binding
  /** The binding's node has refused it as not its own: wait for `owned`. */
  isHomeless: boolean
  /** Another node says that the partition is its own: what has not begun waits until that one has answered for it. */
  isMoving: boolean
  fiber: Fiber.RuntimeFiber<Outcome> | undefined
  /** How it has ended already, in a transaction of its handler. */
  committed: Outcome | undefined
  /** Runs on though its owner no longer counts it: it takes a slot from all nodes. */
  isAstray: boolean
  timers: Array<Fiber.RuntimeFiber<unknown>> | undefined
  stopReason: StopReason | undefined
  outcome: Outcome | undefined
  /** What it tells; `undefined`: nothing yet. */
  notes: Notes | undefined
  /** Monotonic, ms: when it was assigned; once it runs, when it began. */
  since: number
  /** Monotonic, ms: its start, or its last heartbeat. Kept only where there is a `heartbeatMs`. */
  beatAt: number
  heartbeatMs: number | undefined
  /** How often it was seen waiting for its start. */
  looks: number
  /** Monotonic, ms: when the outcome became known. */
  endedAt: number
}

export interface Attempts {
  readonly handlers: Handlers["Type"]
  readonly runtime: Runtime.Runtime<never>
  readonly cancelGraceMs: number
  readonly pace: Ahead.Pace
  readonly stood: StandStill
  readonly held: Map<string, Held>
  /** Handlers that may run at once, each as many of them as it takes. */
  readonly slots: number
  /** Nodes with attempts that waited although their share had room, as all slots were in use. */
  readonly crowdedOut: Set<Binding>
  /** Slots of handlers that run, including those nobody waits for any more. */
  running: number
  /** Outcomes without an answer, and their characters. */
  unacked: number
  unackedChars: number
  /** Take nothing new. */
  isStopping: boolean
  /** Called by `changed`. */
  readonly watchers: Set<() => void>
  /** Called after each change of `running` or `unacked`. */
  changed: () => void
  /** Called when there is more or less to share among the nodes. */
  rebalance: () => void
}

/** A run has each lease once. */
export const keyOf = (ref: AttemptRef): string => ref.runId + ref.lease

export const refOf = ({ assignment }: Held): AttemptRef => ({
  partitionId: assignment.partitionId,
  runId: assignment.runId,
  attempt: assignment.attempt,
  lease: assignment.lease
})

const fork = <A>(attempts: Attempts, effect: Effect.Effect<A>): Fiber.RuntimeFiber<A> =>
  Runtime.runFork(attempts.runtime, effect, { immediate: false })

/**
 * The owner's deadline for start-to-close counts from the assignment, with 2 s to spare: what could not begin by then is
 * given back instead.
 */
const beginWithinMs = 1_000

/** Takes an attempt. One that is held already is not taken twice; one that cannot run is handed back at once. */
const take = (attempts: Attempts, binding: Binding, assignment: Assignment): void => {
  const key = keyOf(assignment)
  if (attempts.held.has(key)) return
  const held: Held = {
    key,
    slots: assignment.slots ?? 1,
    assignment,
    binding,
    isHomeless: false,
    isMoving: false,
    fiber: undefined,
    committed: undefined,
    isAstray: false,
    timers: undefined,
    stopReason: undefined,
    outcome: undefined,
    notes: undefined,
    since: performance.now(),
    beatAt: 0,
    heartbeatMs: undefined,
    looks: 0,
    endedAt: 0
  }
  attempts.held.set(key, held)
  binding.held.add(held)
  binding.ready.add(held)
}

/** Begins what waits, as far as the node's share goes. */
export const startReady = (attempts: Attempts, binding: Binding): void => {
  // An attempt that ends at once comes here again, from within.
  if (binding.isStarting) return
  binding.isStarting = true
  binding.isUnsure = false
  for (const held of binding.ready) {
    if (held.isMoving) continue
    if (binding.lastAnswer < attempts.stood.lastEnd()) {
      binding.isUnsure = true
      binding.asking.open()
      break
    }
    // One that takes more than is free holds up those behind it: they would starve it.
    if (binding.running + held.slots > binding.ceiling) break
    // Attempts that moved here with their partition run beyond the share of this node, whose other slots are not free then.
    if (attempts.running + held.slots > attempts.slots) {
      attempts.crowdedOut.add(binding)
      break
    }
    binding.ready.delete(held)
    start(attempts, held)
  }
  binding.isStarting = false
  if (binding.ready.size > 0) binding.lingering.unsafeOpen()
}

/** The node has answered what was sent then, monotonic ms. */
export const answered = (attempts: Attempts, binding: Binding, sentAt: number): void => {
  binding.lastAnswer = Math.max(binding.lastAnswer, sentAt)
  if (binding.isUnsure) startReady(attempts, binding)
}

/** Back to its owner, uncounted. */
export const giveBack = (attempts: Attempts, held: Held): void => {
  if (held.binding.ready.delete(held)) finish(attempts, held, { _tag: "interrupted" })
}

/** Whether an attempt of the node has begun since, by the worker's monotonic clock. */
export const hasBegunSince = ({ held }: Binding, since: number): boolean => {
  for (const each of held) if (each.fiber !== undefined && each.since > since) return true
  return false
}

const start = (attempts: Attempts, held: Held): void => {
  const { assignment, binding } = held
  const known = attempts.handlers.find(assignment.task)
  const now = performance.now()
  const isLate = now - held.since > beginWithinMs
  // After a pause of the process it may read, before anything else, what was assigned long ago and is another's by now.
  if (known === undefined || attempts.isStopping || isLate || now >= leaseEnds(binding)) {
    return finish(attempts, held, { _tag: "interrupted" })
  }
  held.since = now
  if (held.slots > 1) binding.largeAt = now
  binding.peak = Math.max(binding.peak, binding.running + held.slots)
  const { payload, timeoutMs } = assignment
  const attempt = new RunningAttempt(held)
  held.heartbeatMs = known.heartbeatMs
  held.beatAt = now
  const services = attemptContext(known.services, attempt)
  const effect = attemptSpan(assignment, begin(known.handler, payload, attempt))
  // A handler that had nothing to wait for has ended already: no fiber.
  if (Exit.isExit(effect)) {
    paced(attempts, held, false)
    freeSlots(binding, held.slots)
    return finish(attempts, held, outcomeOf(held, effect as Exit.Exit<Outcome>))
  }
  attempts.running += held.slots
  binding.running += held.slots
  const { fiberRefs, runtimeFlags } = attempts.runtime
  const fiber = Runtime.runFork(Runtime.make({ context: services, fiberRefs, runtimeFlags }), effect)
  const exit = fiber.unsafePoll()
  if (exit !== null) return ended(attempts, held, exit)
  held.fiber = fiber
  fiber.addObserver((exit) => ended(attempts, held, exit))
  if (timeoutMs > 0) later(attempts, held, timeoutMs, () => stop(attempts, held, "timeout"))
  if (held.heartbeatMs !== undefined) {
    held.timers ??= []
    held.timers.push(fork(attempts, watchHeartbeats(attempts, held, held.heartbeatMs)))
  }
}

/** The first silence counts from its start. */
const watchHeartbeats = (attempts: Attempts, held: Held, heartbeatMs: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const left = held.beatAt + heartbeatMs - performance.now()
    return left > 0
      ? Effect.zipRight(Effect.sleep(left), watchHeartbeats(attempts, held, heartbeatMs))
      : Effect.sync(() => stop(attempts, held, "silence"))
  })

const paced = (attempts: Attempts, held: Held, waited: boolean): void => {
  const tookMs = performance.now() - held.since
  if (Ahead.noteEnd(attempts.pace, waited ? tookMs * held.slots : tookMs, waited)) attempts.rebalance()
}

const begin = (
  handler: Handler,
  payload: string,
  attempt: Attempt["Type"]
): Effect.Effect<Outcome, never, Attempt> => {
  try {
    return handler(payload, attempt)
  } catch (defect) {
    return Effect.die(defect)
  }
}

const later = (attempts: Attempts, held: Held, delayMs: number, run: () => void): void => {
  held.timers ??= []
  held.timers.push(fork(attempts, Effect.delay(Effect.sync(run), delayMs)))
}

/**
 * Interrupts a running handler. Its end is reported; one that ignores the interruption for `cancelGrace` is reported
 * as if it had ended, while it goes on to occupy its slot.
 */
export const stop = (attempts: Attempts, held: Held, reason: StopReason): void => {
  if (reason === "abandon") drop(attempts, held)
  if (held.binding.ready.delete(held)) {
    return finish(attempts, held, { _tag: reason === "cancel" ? "cancelled" : "interrupted" })
  }
  if (held.fiber === undefined) return
  if (reason === "abandon") goAstray(attempts, held)
  const isFirst = held.stopReason === undefined
  if (isFirst || reason === "abandon") held.stopReason = reason
  if (!isFirst) return
  held.fiber.unsafeInterruptAsFork(FiberId.none)
  later(attempts, held, attempts.cancelGraceMs, () => {
    if (held.isAstray) return
    goAstray(attempts, held)
    finish(attempts, held, outcomeOfStop(held))
  })
}

const goAstray = (attempts: Attempts, held: Held): void => {
  if (held.isAstray) return
  held.isAstray = true
  leave(held.binding, held.slots)
  attempts.rebalance()
}

/** One attempt fewer that the node counts as running here. */
const leave = (binding: Binding, slots: number): void => {
  binding.running -= slots
  freeSlots(binding, slots)
}

const freeSlots = (binding: Binding, slots: number): void => {
  if (binding.ceiling > binding.credit) binding.ceiling = Math.max(binding.credit, binding.ceiling - slots)
}

const ended = (attempts: Attempts, held: Held, exit: Exit.Exit<Outcome>): void => {
  held.fiber = undefined
  if (held.timers !== undefined) {
    for (const timer of held.timers) timer.unsafeInterruptAsFork(FiberId.none)
    held.timers = undefined
  }
  attempts.running -= held.slots
  if (held.isAstray) {
    attempts.rebalance()
    attempts.changed()
    return startCrowdedOut(attempts)
  }
  leave(held.binding, held.slots)
  paced(attempts, held, true)
  finish(attempts, held, outcomeOf(held, exit))
  startReady(attempts, held.binding)
  startCrowdedOut(attempts)
}

const startCrowdedOut = (attempts: Attempts): void => {
  if (attempts.crowdedOut.size === 0) return
  const bindings = [...attempts.crowdedOut]
  attempts.crowdedOut.clear()
  for (const binding of bindings) if (binding.isOpen) startReady(attempts, binding)
}

const outcomeOf = (held: Held, exit: Exit.Exit<Outcome>): Outcome =>
  Exit.isSuccess(exit) ? exit.value : outcomeOfCause(held, exit.cause)

const outcomeOfStop = (held: Held): Outcome => {
  if (held.stopReason === "cancel") return { _tag: "cancelled" }
  if (held.stopReason === "interrupt") return { _tag: "interrupted" }
  const [tag, message] = held.stopReason === "silence"
    ? [tags.heartbeat, `no heartbeat within ${held.heartbeatMs} ms`]
    : [tags.timeout, `no end within ${held.assignment.timeoutMs} ms`]
  return { _tag: "failure", failure: { kind: "timeout", tag, message }, retryable: true }
}

const messageLengthMax = 4_096

const outcomeOfCause = (held: Held, cause: Cause.Cause<unknown>): Outcome => {
  const isInterrupted = Cause.isInterruptedOnly(cause)
  if (held.stopReason !== undefined && isInterrupted) return outcomeOfStop(held)
  // A handler that interrupts itself would be tried for ever as `interrupted`: that is a bug in it, and counts.
  const problem = Cause.squash(cause)
  const tag = isInterrupted ? "Interrupted" : problem instanceof Error ? problem.name : typeof problem
  const text = problem instanceof Error ? problem.message : String(problem)
  return {
    _tag: "failure",
    failure: { kind: "defect", tag: tag.slice(0, messageLengthMax), message: text.slice(0, messageLengthMax) },
    retryable: true
  }
}

/** The outcome is known: it is kept and sent until somebody answers for it. */
const finish = (attempts: Attempts, held: Held, outcome: Outcome): void => {
  held.outcome = held.committed ?? outcome
  held.endedAt = performance.now()
  attempts.unacked += 1
  attempts.unackedChars += charsOf(held)
  post(held)
  attempts.changed()
}

/** Characters of an outcome that matter for memory and for the size of a report. */
export const charsOf = ({ outcome }: Held): number => {
  if (outcome?._tag === "success") return outcome.result.length
  if (outcome?._tag !== "failure") return 0
  return outcome.failure.message.length + (outcome.failure.error?.length ?? 0)
}

/** Puts an outcome in line where it belongs, if there is such a place now. */
export const post = (held: Held): void => {
  const { binding } = held
  if (held.outcome === undefined || held.isHomeless || !binding.isOpen) return
  // What it has told is to be known before its end.
  if (held.notes?.isPending === true) return note(held)
  binding.outbox.add(held)
  binding.wake.unsafeOpen()
  if (isDue(binding)) binding.due.open()
}

/** Puts its notes in line. */
export const note = (held: Held): void => {
  const { binding, notes } = held
  if (notes === undefined || !notes.isPending || !binding.isOpen) return
  binding.noted.add(held)
  binding.noteWake.unsafeOpen()
  if (held.outcome !== undefined || notes.isUrgent) binding.noteDue.open()
}

/** Enough has gathered to be worth a message: without it the node would have little more to assign. */
const isDue = ({ ahead, credit, outbox }: Binding): boolean => outbox.size > (credit + ahead) / 2

/** The worker holds the attempt no longer: answered, or given up. */
export const drop = (attempts: Attempts, held: Held): void => {
  if (!attempts.held.delete(held.key)) return
  held.binding.held.delete(held)
  held.binding.ready.delete(held)
  held.binding.outbox.delete(held)
  held.binding.noted.delete(held)
  if (held.outcome !== undefined) {
    attempts.unacked -= 1
    attempts.unackedChars -= charsOf(held)
  }
  attempts.changed()
}

/**
 * Its owner counts another attempt. It may have said so before it heard that this one is held, and have adopted it then: it is
 * told again.
 */
export const refused = (attempts: Attempts, held: Held): void => {
  stop(attempts, held, "abandon")
  held.binding.announce(held.assignment.partitionId)
}

/** From now on the attempt's owner is reached through this session. */
export const rebind = (held: Held, binding: Binding): void => {
  const before = held.binding
  if (before !== binding) {
    before.held.delete(held)
    before.outbox.delete(held)
    before.noted.delete(held)
    binding.held.add(held)
    if (before.ready.delete(held)) binding.ready.add(held)
    if (held.fiber !== undefined && !held.isAstray) {
      leave(before, held.slots)
      binding.running += held.slots
    }
    held.binding = binding
  }
  held.isHomeless = false
  held.isMoving = false
  note(held)
}

export const heldOf = (attempts: Attempts, partitionId: number): ReadonlyArray<Held> =>
  [...attempts.held.values()].filter((held) => held.assignment.partitionId === partitionId)

/** Everything a node can say but `owned`, which needs an answer. */
export const receive = (
  attempts: Attempts,
  binding: Binding,
  message: Exclude<ToWorker, { readonly _tag: "owned" }>
): void => {
  switch (message._tag) {
    case "assign":
      for (const assignment of message.assignments) take(attempts, binding, assignment)
      return startReady(attempts, binding)
    case "cancel":
      for (const ref of message.attempts) {
        const held = attempts.held.get(keyOf(ref))
        if (held !== undefined) stop(attempts, held, "cancel")
      }
      return
    case "hungry":
      binding.hungry = message.hungry
      binding.need = message.need ?? 1
      return attempts.rebalance()
  }
}
