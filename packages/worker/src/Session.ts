/** A worker's dealings with one node: attach, report, announce, heartbeat; again after each loss while it is listed. */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { epochOf } from "@orrery/core/Numbers"
import type { NodeLink, ToWorker } from "@orrery/core/WorkerProtocol"
import { Duration, Effect, Either, Exit, Schedule, type Scope } from "effect"
import * as Ahead from "./Ahead.js"
import * as Attempts from "./Attempts.js"
import type { Balancer } from "./Balancer.js"
import { type Binding, leaseEnds, makeBinding } from "./Binding.js"
import * as NoteReports from "./NoteReports.js"
import * as Reports from "./Reports.js"
import { within } from "./within.js"

/** A node that is or was listed. */
export interface NodeState {
  link: NodeLink
  isListed: boolean
}

interface Owner {
  readonly epoch: number
  /** `undefined`: its session has ended. */
  binding: Binding | undefined
}

export interface Sessions {
  readonly workerId: string
  readonly attempts: Attempts.Attempts
  readonly balancer: Balancer
  /** Who owns a partition, by the highest epoch that was heard of. */
  readonly owners: Map<number, Owner>
  /** Outlives the sessions: for watches on attempts whose session is lost. */
  readonly scope: Scope.Scope
}

/** Pause before a node that refused or was lost is tried again. */
export const reattachSchedule = Schedule.exponential("20 millis", 2).pipe(
  Schedule.union(Schedule.spaced("500 millis")),
  Schedule.jittered
)
/** Pause after a session ended: a node that closes each session at once is not attached to in a tight loop. */
const sessionPause = Duration.millis(20)
const attachMsMax = 5_000
/** Pause before an announcement that failed is repeated. */
const repeatPause = Duration.millis(50)
/** An attempt that waits for a slot is looked at this often, and given back when it was seen waiting so many times. */
const lookPause = Duration.millis(50)
const looksMax = 5
/** Heartbeats per lease. */
const heartbeats = 4

/** Attaches for as long as the node is listed. */
export const keep = (sessions: Sessions, node: NodeState): Effect.Effect<void> =>
  attachOnce(sessions, node).pipe(
    Effect.retry({ schedule: reattachSchedule, while: () => node.isListed }),
    Effect.ignore,
    Effect.zipRight(Effect.sleep(sessionPause)),
    Effect.repeat({ while: () => node.isListed }),
    Effect.asVoid
  )

/** One session, from attachment to its end. */
const attachOnce = (sessions: Sessions, node: NodeState): Effect.Effect<void, ClusterUnavailable> =>
  Effect.scoped(attached(sessions, node))

const attached = Effect.fnUntraced(function*(sessions: Sessions, node: NodeState) {
  const { attempts, balancer } = sessions
  const { link } = node
  const inbox = yield* makeInbox(sessions)
  // Without credit at first: another node may still have to give some back.
  const hello = { workerId: sessions.workerId, tasks: attempts.handlers.names(), credit: 0 }
  const sentAt = performance.now()
  const answer = yield* within(link.attach(hello, inbox.deliver), attachMsMax)
  const session = yield* answer
    ?? new ClusterUnavailable({ operation: `attach ${link.node}`, reason: "no answer in time" })
  const binding = yield* makeBinding(node, session, sentAt, inbox.announce)
  yield* Effect.acquireRelease(
    Effect.sync(() => balancer.bindings.add(binding)),
    () =>
      Effect.sync(() => {
        binding.isOpen = false
        // Whoever owns them next is told that they have not begun.
        for (const held of binding.ready) Attempts.giveBack(attempts, held)
        for (const owner of sessions.owners.values()) if (owner.binding === binding) owner.binding = undefined
        balancer.bindings.delete(binding)
        balancer.wake.unsafeOpen()
      })
  )
  yield* Effect.forkIn(watchLease(sessions, binding), sessions.scope)
  yield* Effect.forkScoped(Reports.sendAll(attempts, binding))
  yield* Effect.forkScoped(NoteReports.sendAll(attempts, binding))
  yield* Effect.forkScoped(beat(attempts, binding))
  yield* Effect.forkScoped(giveBackLingering(attempts, binding, balancer))
  yield* Effect.forkScoped(inbox.open(binding))
  // The same incarnation of the node: it owns what it owned, and need not say so again.
  for (const partitionId of partitionsOf(sessions, link.node)) inbox.announce(partitionId)
  yield* balancer.wake.open
  yield* Effect.forkScoped(Effect.zipRight(session.closed, binding.lost.open))
  yield* binding.lost.await
})

/**
 * What the node says, in order. Deliveries are synchronous and end at once; announcements need calls and are made by
 * `open`, one partition at a time. The partitions waiting are a set, no larger than that of those with held attempts.
 */
const makeInbox = (sessions: Sessions) =>
  Effect.sync(() => {
    const { attempts, owners } = sessions
    const early: Array<ToWorker> = []
    const owned = new Set<number>()
    const wake = Effect.unsafeMakeLatch(false)
    let binding: Binding | undefined
    const announce = (partitionId: number): void => {
      owned.add(partitionId)
      wake.unsafeOpen()
    }
    /** False: another node owns it under a higher epoch, whatever this one believes. */
    const isOwner = (to: Binding, partitionId: number, epoch: number): boolean => {
      const known = owners.get(partitionId)
      if (known !== undefined && known.epoch > epoch) return false
      if (known?.epoch !== epoch || known.binding !== to) owners.set(partitionId, { epoch, binding: to })
      return true
    }
    const receive = (to: Binding, message: ToWorker): void => {
      if (!to.isOpen) return
      if (message._tag === "owned") {
        if (!isOwner(to, message.partitionId, message.epoch)) return
        const held = Attempts.heldOf(attempts, message.partitionId)
        for (const each of held) each.isMoving = epochOf(each.assignment.lease) < message.epoch
        if (message.expects > 0 || held.length > 0) announce(message.partitionId)
        return
      }
      if (message._tag !== "assign") return Attempts.receive(attempts, to, message)
      // Of an owner that has been replaced meanwhile: the new one has been told that nothing of it is held here.
      const assignments = message.assignments.filter((each) => isOwner(to, each.partitionId, epochOf(each.lease)))
      Attempts.receive(attempts, to, { _tag: "assign", assignments })
    }
    const announceNext = (to: Binding) =>
      Effect.suspend(() => {
        const [partitionId] = owned
        if (partitionId === undefined) {
          wake.unsafeClose()
          return wake.await
        }
        owned.delete(partitionId)
        return Effect.flatMap(announceHeld(sessions, to, partitionId), (isDone) => {
          if (isDone) return Effect.void
          announce(partitionId)
          return Effect.sleep(repeatPause)
        })
      })
    return {
      announce,
      deliver: (message: ToWorker): void => {
        if (binding === undefined) early.push(message)
        else receive(binding, message)
      },
      open: (to: Binding): Effect.Effect<never> =>
        Effect.suspend(() => {
          binding = to
          for (const message of early.splice(0)) receive(to, message)
          return Effect.forever(announceNext(to))
        })
    }
  })

const partitionsOf = ({ attempts }: Sessions, node: string): ReadonlySet<number> => {
  const found = new Set<number>()
  for (const held of attempts.held.values()) {
    if (held.binding.node === node && !held.binding.isOpen) found.add(held.assignment.partitionId)
  }
  return found
}

/** Moves the held attempts of a partition to its new owner, and lets go of those it has given up. */
const announceHeld = (sessions: Sessions, binding: Binding, partitionId: number): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const { attempts } = sessions
    const owner = sessions.owners.get(partitionId)
    // Somebody else owns it by now, and is told instead.
    if (owner?.binding !== undefined && owner.binding !== binding) {
      owner.binding.announce(partitionId)
      return Effect.succeed(true)
    }
    const moved = Attempts.heldOf(attempts, partitionId)
    const sentAt = performance.now()
    const knownEpoch = () => sessions.owners.get(partitionId)?.epoch
    const epoch = owner?.epoch
    return binding.session.announce(partitionId, moved.map(Attempts.refOf)).pipe(
      Effect.either,
      Effect.map((answer) => {
        if (Either.isRight(answer)) binding.lastAnswer = Math.max(binding.lastAnswer, sentAt)
        // Whoever has said meanwhile that it is theirs is told too, and may have answered first.
        if (knownEpoch() !== epoch) return true
        if (Either.isLeft(answer)) return sessions.owners.get(partitionId)?.binding !== binding
        const lost = new Set(answer.right.map(Attempts.keyOf))
        for (const held of moved) {
          if (!attempts.held.has(held.key)) continue
          if (lost.has(held.key)) {
            Attempts.stop(attempts, held, "abandon")
          } else {
            Attempts.rebind(held, binding)
            Attempts.post(held)
          }
        }
        Attempts.startReady(attempts, binding)
        sessions.balancer.wake.unsafeOpen()
        return true
      })
    )
  })

/**
 * What waits for a slot for long goes back: another worker may have one free. Counted in looks, not in time: after a
 * pause of the process nothing has waited for a slot.
 */
const giveBackLingering = (attempts: Attempts.Attempts, binding: Binding, balancer: Balancer): Effect.Effect<never> =>
  Effect.zipRight(binding.lingering.await, Effect.sleep(lookPause)).pipe(
    Effect.zipRight(Effect.sync(() => {
      binding.lingering.unsafeClose()
      for (const held of binding.ready) held.looks += 1
      const late = [...binding.ready].filter((held) => held.looks >= looksMax)
      if (late.length > 0) {
        Ahead.noteStall(attempts.pace, !Attempts.hasBegunSince(binding, late[0]!.since + Duration.toMillis(lookPause)))
        balancer.wake.unsafeOpen()
        for (const held of late) Attempts.giveBack(attempts, held)
      }
      Attempts.startReady(attempts, binding)
    })),
    Effect.forever
  )

const beat = (attempts: Attempts.Attempts, binding: Binding): Effect.Effect<never> => {
  const { asking, session } = binding
  const intervalMs = session.leaseMs / heartbeats
  const beatOnce = Effect.suspend(() => {
    asking.close()
    const sentAt = performance.now()
    return Effect.map(within(session.heartbeat, intervalMs), (answer) => {
      if (answer !== undefined && Exit.isSuccess(answer)) Attempts.answered(attempts, binding, sentAt)
    })
  })
  return Effect.forever(Effect.zipRight(asking.within(intervalMs), beatOnce))
}

/**
 * The worker's own deadline, by its monotonic clock and earlier than the owner's: interrupts what is bound to the node
 * when nothing was answered for most of the lease. Attempts that found a new owner are not bound to it any more.
 */
const watchLease = (sessions: Sessions, binding: Binding): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!binding.isOpen && binding.running === 0) return Effect.void
    const left = leaseEnds(binding) - performance.now()
    if (left > 0) return Effect.zipRight(Effect.sleep(left), watchLease(sessions, binding))
    for (const held of binding.held) Attempts.stop(sessions.attempts, held, "interrupt")
    return binding.lost.open
  })
