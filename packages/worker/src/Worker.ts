/**
 * Executes attempts of tasks: in a node, in an app, or in a process of its own. Which, is decided by the `NodeLinks`.
 *
 * - at most `slots` handlers run at once, over all nodes; one of a task that takes several counts as so many
 * - an outcome is kept until an owner has answered for it; a lost node, or a partition that moves, loses none
 * - no handler runs on after 0.8 of a lease in which no answer came: another worker may have the run soon after
 * - when the scope closes, handlers may end for `shutdownGrace`; the rest is handed back and counts as no attempt
 *
 * Bounds: running handlers by `slots`; attempts that wait for a slot by `Ahead`; outcomes waiting for an answer by about `unackedMax` and `unackedCharsMax`.
 * Above them all credit is taken back, so nothing new starts (but what begins in those milliseconds), and nothing need
 * be dropped. What no owner has asked for within `homelessMax` is dropped: its lease is long over, and the run has been
 * given to another worker.
 */
import { Handlers } from "@orrery/core/Handlers"
import { type NodeLink, NodeLinks } from "@orrery/core/WorkerProtocol"
import { Duration, Effect, FiberSet, Layer, type Runtime, Scope } from "effect"
import { randomUUID } from "node:crypto"
import * as Ahead from "./Ahead.js"
import * as Attempts from "./Attempts.js"
import * as Balancer from "./Balancer.js"
import * as Session from "./Session.js"
import * as StandStill from "./StandStill.js"
import * as Turns from "./Turns.js"

export interface WorkerOptions {
  /** Handlers that may run at once. Runs that take more slots than that are given to other workers. */
  readonly slots: number
  /** Names the process for people and in stored runs; unique per start. Default `worker-` and a random UUID. */
  readonly workerId?: string
  /** How long running handlers may go on after the scope has closed. Default 30 s. */
  readonly shutdownGrace?: Duration.DurationInput
  /** How long an interrupted handler may take to end before it is reported as ended. Default 10 s. */
  readonly cancelGrace?: Duration.DurationInput
  /** Outcomes without an answer above which nothing new starts. Default 5,000. */
  readonly unackedMax?: number
  /** Characters of such outcomes, as `unackedMax`. Default 64 Mi. */
  readonly unackedCharsMax?: number
  /** Handlers and their time limits run by its clock and on its scheduler. Default: that of the worker. */
  readonly runtime?: Runtime.Runtime<never>
}

/** How long the last outcomes may take to be answered when the worker stops. */
const reportGrace = Duration.seconds(5)
/** How long an outcome without an owner is kept. */
const homelessMax = Duration.minutes(10)
const homelessSweep = Duration.minutes(1)

const make = (options: WorkerOptions) =>
  Effect.gen(function*() {
    if (!Number.isInteger(options.slots) || options.slots < 1) {
      return yield* Effect.dieMessage(`slots must be an integer of at least 1, got ${options.slots}`)
    }
    const handlers = yield* Handlers
    const links = yield* NodeLinks
    yield* warnOfLarge(handlers, options.slots)
    const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
    const balancer = yield* makeBalancer(options, handlers)
    const workerId = options.workerId ?? `worker-${randomUUID()}`
    const sessions: Session.Sessions = { workerId, attempts: balancer.attempts, balancer, owners: new Map(), scope }
    const background = Effect.gen(function*() {
      yield* Effect.forkScoped(Balancer.run(balancer))
      yield* Effect.forkScoped(Effect.forever(Effect.delay(dropHomeless(balancer.attempts), homelessSweep)))
      yield* links.watch(yield* follow(sessions))
    })
    yield* Scope.extend(background, scope)
    // The last finalizer, so the first to run: sessions are still open then.
    yield* Effect.addFinalizer(() => shutDown(sessions, Duration.decode(options.shutdownGrace ?? "30 seconds")))
  }).pipe(Effect.annotateLogs({ module: "Worker" }))

/** Said once, at its start: a worker that will never run them is no mistake where others are larger. */
const warnOfLarge = (handlers: Handlers["Type"], slots: number) =>
  Effect.forEach(handlers.names(), (task) => {
    const asked = handlers.find(task)?.slots ?? 1
    return asked <= slots ? Effect.void : Effect.logWarning(
      `task ${task} takes ${asked} slots and this worker has ${slots}: it is given none of its runs`
    )
  }, { discard: true })

const makeBalancer = (options: WorkerOptions, handlers: Handlers["Type"]) =>
  Effect.gen(function*() {
    const unackedMax = options.unackedMax ?? 5_000
    const unackedCharsMax = options.unackedCharsMax ?? 64 * 1024 * 1024
    const attempts: Attempts.Attempts = {
      handlers,
      runtime: options.runtime ?? (yield* Effect.runtime<never>()),
      cancelGraceMs: Duration.toMillis(options.cancelGrace ?? "10 seconds"),
      pace: Ahead.makePace(options.slots),
      stood: yield* StandStill.make,
      held: new Map(),
      slots: options.slots,
      crowdedOut: new Set(),
      running: 0,
      unacked: 0,
      unackedChars: 0,
      isStopping: false,
      watchers: new Set(),
      changed: () => changed(),
      rebalance: () => balancer.wake.unsafeOpen()
    }
    const balancer: Balancer.Balancer = {
      attempts,
      slots: options.slots,
      bindings: new Set(),
      isPaused: false,
      isWanting: false,
      looksAgain: false,
      turns: Turns.make(),
      wake: yield* Effect.makeLatch(false)
    }
    const changed = (): void => {
      for (const look of attempts.watchers) look()
      const { unacked, unackedChars } = attempts
      // Half way down before it starts again, so that it does not flap at the bound.
      const part = balancer.isPaused ? 0.5 : 1
      const isPaused = unacked > unackedMax * part || unackedChars > unackedCharsMax * part
      const mayMove = balancer.isWanting || isPaused !== balancer.isPaused
      balancer.isPaused = isPaused
      if (mayMove || Balancer.isUneven(balancer)) balancer.wake.unsafeOpen()
    }
    return balancer
  })

/** Keeps a session with each listed node. */
const follow = (sessions: Session.Sessions) =>
  Effect.gen(function*() {
    const nodes = new Map<string, Session.NodeState>()
    const fork = yield* FiberSet.makeRuntime<never, void, never>()
    const start = (node: Session.NodeState): void => {
      nodes.set(node.link.node, node)
      fork(Effect.zipRight(
        Session.keep(sessions, node),
        Effect.sync(() => {
          if (node.isListed) return start(node)
          nodes.delete(node.link.node)
        })
      ))
    }
    return (links: ReadonlyArray<NodeLink>): void => {
      const listed = new Set(links.map((link) => link.node))
      // An open session with an unlisted node goes on until it breaks: a goodbye would give its attempts back.
      for (const [name, node] of nodes) node.isListed = listed.has(name)
      for (const link of links) {
        const known = nodes.get(link.node)
        if (known === undefined) start({ link, isListed: true })
        else known.link = link
      }
      sessions.balancer.wake.unsafeOpen()
    }
  })

/** Outcomes nobody has asked for in a long time. */
const dropHomeless = (attempts: Attempts.Attempts) =>
  Effect.suspend(() => {
    const before = performance.now() - Duration.toMillis(homelessMax)
    const old = [...attempts.held.values()].filter((held) =>
      held.outcome !== undefined && held.endedAt < before && (held.isHomeless || !held.binding.isOpen)
    )
    for (const held of old) Attempts.drop(attempts, held)
    return old.length === 0
      ? Effect.void
      : Effect.logWarning("outcomes dropped that no owner asked for", { outcomes: old.length })
  })

/** Stops taking, lets handlers end, interrupts the rest, and waits for the answers; then the sessions say goodbye. */
const shutDown = ({ attempts, balancer }: Session.Sessions, grace: Duration.Duration) =>
  Effect.gen(function*() {
    attempts.isStopping = true
    const until = (isReached: () => boolean, limit: Duration.Duration) =>
      reached(attempts, isReached).pipe(Effect.interruptible, Effect.timeoutOption(limit))
    const isEnded = () => attempts.unacked === attempts.held.size
    for (const held of attempts.held.values()) Attempts.giveBack(attempts, held)
    // Finalizers are not interruptible, and a call that is not cannot be given up: one to a node that is cut off would hold
    // up the end for ever. In a fiber of its own, as `timeout` makes one: this one may end by an interruption, as at SIGTERM.
    yield* Balancer.round(balancer).pipe(Effect.interruptible, Effect.timeoutOption(reportGrace))
    yield* until(isEnded, grace)
    for (const held of [...attempts.held.values()]) Attempts.stop(attempts, held, "interrupt")
    yield* until(isEnded, Duration.sum(Duration.millis(attempts.cancelGraceMs), Duration.seconds(1)))
    yield* until(() => attempts.held.size === 0, reportGrace)
    const unanswered = attempts.held.size
    if (unanswered > 0) yield* Effect.logWarning("stopped with outcomes that no owner answered for", { unanswered })
  })

const reached = (attempts: Attempts.Attempts, isReached: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    const look = (): void => {
      if (!isReached()) return
      attempts.watchers.delete(look)
      resume(Effect.void)
    }
    attempts.watchers.add(look)
    look()
    return Effect.sync(() => attempts.watchers.delete(look))
  })

/** Needs `Handlers`, filled: build it after the layers of the tasks. Attaches and works in the background. */
export const layer = (options: WorkerOptions): Layer.Layer<never, never, Handlers | NodeLinks> =>
  Layer.scopedDiscard(make(options))
