/**
 * The workers attached to this node, and their slots, shared by all its actors.
 *
 * `out` counts the attempts that actors of this node have at a worker. It is derived from what the machines hold
 * whenever a session or an actor comes or goes, and kept up by one in between, so it cannot drift. It may exceed the
 * node's share of the worker's slots by what the worker lets it have ahead.
 */
import type { WorkerPool } from "@orrery/core/Entry"
import { ClusterUnavailable, type StoreUnavailable } from "@orrery/core/Errors"
import type { NoteReport } from "@orrery/core/RunNotes"
import type { Assignment, AttemptRef, Hello, OutcomeAnswer, OutcomeReport, ToWorker } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"
import * as Hunger from "./Hunger.js"
import type { QueueActor } from "./QueueActor.js"

/** Workers one node serves. */
export const workersMax = 10_000

interface Attached {
  readonly id: string
  readonly tasks: ReadonlySet<string>
  readonly deliver: (message: ToWorker) => void
  readonly closed: () => void
  credit: number
  /** How many may be out beyond the credit: they wait at the worker. */
  ahead: number
  /** It is of a release that can read assignments with a trace. */
  readsTrace: boolean
  out: number
  /** Half of `ahead` has been used up since it was full: it is filled in one go, not one by one. */
  isRefilling: boolean
  readonly appetite: Hunger.Appetite
  /** Monotonic ms of its last sign of life. */
  seenAt: number
}

/** A worker's session as the node sees it. Calls on a session that has ended answer as if nothing were owned here. */
export interface HubSession {
  readonly report: (reports: ReadonlyArray<OutcomeReport>) => Effect.Effect<ReadonlyArray<OutcomeAnswer>>
  /** In the order of the reports, once they are durable. */
  readonly note: (reports: ReadonlyArray<NoteReport>) => Effect.Effect<ReadonlyArray<OutcomeAnswer>, ClusterUnavailable>
  /** What an earlier attempt of the run has left. */
  readonly checkpoint: (attempt: AttemptRef) => Effect.Effect<string | null, ClusterUnavailable>
  /** `undefined`: the partition is not owned here, so nothing can be said about its attempts. */
  readonly announce: (
    partitionId: number,
    held: ReadonlyArray<AttemptRef>
  ) => ReadonlyArray<AttemptRef> | undefined
  /** `readsTrace`: it can be given assignments with a trace. Default false. */
  readonly setCredit: (credit: number, ahead: number, readsTrace?: boolean) => number
  readonly heartbeat: () => boolean
  /** The connection is gone without goodbye. */
  readonly lost: () => void
  readonly goodbye: () => void
}

export class WorkerHub {
  private readonly attached = new Map<string, Attached>()
  private readonly byTask = new Map<string, Array<Attached>>()
  private readonly actors = new Map<number, QueueActor>()
  /** Actors with ready runs that found no slot, in order of their turns. */
  private readonly waiting = new Set<QueueActor>()
  /** The actor whose dispatch takes slots now while others wait, and how many more it may take. */
  private turn: { readonly actor: QueueActor; left: number } | undefined
  private isClosing = false

  constructor(
    private readonly options: { readonly leaseMs: number; readonly lostGraceMs: number },
    private readonly clock: Hunger.Clock
  ) {}

  /** `closed` is called when the hub ends the session: replaced by a newer one of the same worker, or silent. */
  attach(hello: Hello, deliver: (message: ToWorker) => void, closed: () => void): HubSession | "full" {
    if (this.attached.size >= workersMax && !this.attached.has(hello.workerId)) return "full"
    const before = this.attached.get(hello.workerId)
    if (before !== undefined) this.drop(before)
    const worker: Attached = {
      id: hello.workerId,
      tasks: new Set(hello.tasks),
      deliver,
      closed,
      credit: hello.credit,
      ahead: 0,
      readsTrace: false,
      out: 0,
      isRefilling: true,
      appetite: Hunger.sated(),
      seenAt: this.clock.monotonic()
    }
    this.attached.set(worker.id, worker)
    for (const task of worker.tasks) {
      const list = this.byTask.get(task)
      if (list === undefined) this.byTask.set(task, [worker])
      else list.push(worker)
    }
    this.recount(worker)
    for (const actor of this.actors.values()) {
      actor.doubt(worker.id, this.options.lostGraceMs)
      deliver(ownedBy(actor, worker.id))
    }
    this.wake(worker)
    const isLive = () => this.attached.get(worker.id) === worker
    const seen = () => {
      worker.seenAt = this.clock.monotonic()
    }
    return {
      report: (reports) => {
        seen()
        return this.answers(reports, (actor, those) => actor.report(those))
      },
      note: (reports) => {
        seen()
        const note = (actor: QueueActor, those: ReadonlyArray<NoteReport>) => actor.notes.note(those)
        return Effect.mapError(this.answers(reports, note), unavailable("note"))
      },
      checkpoint: (attempt) => {
        seen()
        const actor = this.actors.get(attempt.partitionId)
        const found = actor === undefined ? Effect.succeed(undefined) : actor.notes.checkpoint(attempt)
        return Effect.flatMap(
          Effect.mapError(found, unavailable("checkpoint")),
          (text) => text === undefined ? notOwned("checkpoint") : Effect.succeed(text)
        )
      },
      announce: (partitionId, held) => {
        if (!isLive()) return undefined
        seen()
        const stale = this.actors.get(partitionId)?.announce(worker.id, held)
        this.recount(worker)
        return stale
      },
      setCredit: (credit, ahead, readsTrace = false) => {
        seen()
        worker.readsTrace = readsTrace
        worker.credit = credit
        worker.ahead = credit === 0 ? 0 : ahead
        this.mayRefill(worker)
        if (isLive()) this.wake(worker)
        return worker.out
      },
      heartbeat: () => {
        seen()
        return isLive()
      },
      lost: () => {
        if (isLive()) this.lose(worker, this.options.lostGraceMs)
      },
      goodbye: () => {
        if (!isLive()) return
        this.drop(worker)
        for (const actor of this.actors.values()) actor.workerGone(worker.id)
      }
    }
  }

  /** An actor now owns its partition here. Workers that hold attempts of it will announce them. */
  register(actor: QueueActor): void {
    this.actors.set(actor.partitionId, actor)
    for (const worker of this.attached.values()) {
      this.recount(worker)
      worker.deliver(ownedBy(actor, worker.id))
    }
  }

  unregister(actor: QueueActor): void {
    if (this.actors.get(actor.partitionId) !== actor) return
    this.actors.delete(actor.partitionId)
    this.waiting.delete(actor)
    for (const worker of this.attached.values()) {
      this.recount(worker)
      // Its runs wait elsewhere now: without this word the node would keep the slots it asked for on their account.
      if (!this.isAwaited(worker)) this.noteAppetite(worker, false)
    }
    for (const other of this.actors.values()) other.schedule()
  }

  /** Ends the sessions of workers that have been silent for a lease. Call it a few times per lease. */
  sweep(): void {
    const since = this.clock.monotonic() - this.options.leaseMs
    for (const worker of this.attached.values()) if (worker.seenAt < since) this.lose(worker, 0)
  }

  /** The node goes down: sessions that end from now on say nothing about their workers. */
  close(): void {
    this.isClosing = true
  }

  get isClosed(): boolean {
    return this.isClosing
  }

  /** Whether a worker is attached that has a handler for the task. */
  hasCapable(task: string): boolean {
    return this.byTask.has(task)
  }

  get workerCount(): number {
    return this.attached.size
  }

  /**
   * Slots for one actor. While others wait for slots too, it gets its part of what is free at a time, and the one that
   * has waited longest is first: an actor that could refill itself for ever would starve its neighbours.
   */
  poolFor(actor: QueueActor): WorkerPool {
    return {
      take: (task, isSuspect) => this.take(actor, task, isSuspect ? slotsFree : roomOf),
      hasRoom: (task, isSuspect) => {
        const room = isSuspect ? slotsFree : roomOf
        for (const worker of this.byTask.get(task) ?? []) if (room(worker) > 0) return true
        return false
      },
      isBehind: (workerId) => {
        const worker = this.attached.get(workerId)
        return worker !== undefined && worker.out > worker.credit
      }
    }
  }

  private take(actor: QueueActor, task: string, room: (worker: Attached) => number): string | undefined {
    const candidates = this.byTask.get(task)
    if (candidates === undefined) return undefined
    let best: Attached | undefined
    for (const worker of candidates) {
      if (room(worker) > 0 && (best === undefined || isBetter(worker, best)) && this.isTurnOf(actor, worker)) {
        best = worker
      }
    }
    if (best === undefined) return undefined
    best.out += 1
    if (best.out >= best.credit + best.ahead) best.isRefilling = false
    if (this.turn?.actor === actor) this.turn.left -= 1
    if (this.waiting.delete(actor)) this.waiting.add(actor)
    return best.id
  }

  /** No other actor has waited longer for this worker. `waiting` is in order of arrival. */
  private isTurnOf(actor: QueueActor, worker: Attached): boolean {
    if (this.turn?.actor === actor && this.turn.left > 0) return true
    for (const other of this.waiting) {
      if (other === actor) {
        let room = 0
        for (const each of this.attached.values()) room += roomOf(each)
        this.turn = { actor, left: Math.ceil(room / this.waiting.size) }
        return true
      }
      if (!other.machine.hasReadyAmong(worker.tasks)) continue
      other.schedule()
      return false
    }
    return true
  }

  assign(workerId: string, assignments: ReadonlyArray<Assignment>): void {
    const worker = this.attached.get(workerId)
    if (worker === undefined) return
    worker.deliver({ _tag: "assign", assignments: worker.readsTrace ? assignments : assignments.map(withoutTrace) })
  }

  interrupt(workerId: string, attempts: ReadonlyArray<AttemptRef>): void {
    this.attached.get(workerId)?.deliver({ _tag: "cancel", attempts })
  }

  freed(workerIds: ReadonlyArray<string>): void {
    let isRoom = false
    for (const id of workerIds) {
      const worker = this.attached.get(id)
      if (worker === undefined) continue
      if (worker.out > 0) worker.out -= 1
      this.mayRefill(worker)
      if (roomOf(worker) > 0) isRoom = true
    }
    if (isRoom) { for (const actor of this.waiting) actor.schedule() }
  }

  /** After each dispatch: whether the actor still waits for slots, and whose share it would use more of. */
  wanting(actor: QueueActor, isOpen: boolean): void {
    if (this.turn?.actor === actor) this.turn = undefined
    let isWaiting = false
    for (const worker of this.attached.values()) {
      const hasReady = isOpen && actor.machine.hasReadyAmong(worker.tasks)
      if (hasReady) isWaiting = true
      const isFull = worker.out >= worker.credit
      // One actor with nothing to do does not speak for the others: a slot must be free too.
      if (isFull === hasReady) this.noteAppetite(worker, hasReady)
    }
    if (isWaiting) {
      this.waiting.add(actor)
      return
    }
    // It may have been the one the others gave way to.
    if (this.waiting.delete(actor)) { for (const other of this.waiting) other.schedule() }
  }

  /** Of the actors of their partitions, in the order of the reports. */
  private answers<R extends AttemptRef, E>(
    reports: ReadonlyArray<R>,
    ask: (actor: QueueActor, reports: ReadonlyArray<R>) => Effect.Effect<ReadonlyArray<OutcomeAnswer>, E>
  ): Effect.Effect<ReadonlyArray<OutcomeAnswer>, E> {
    const groups = new Map<number, { readonly reports: Array<R>; readonly places: Array<number> }>()
    reports.forEach((report, at) => {
      let group = groups.get(report.partitionId)
      if (group === undefined) {
        group = { reports: [], places: [] }
        groups.set(report.partitionId, group)
      }
      group.reports.push(report)
      group.places.push(at)
    })
    const answers: Array<OutcomeAnswer> = reports.map(() => "not-owner")
    return Effect.forEach(groups, ([partitionId, group]) => {
      const actor = this.actors.get(partitionId)
      if (actor === undefined) return Effect.void
      return Effect.map(ask(actor, group.reports), (each) => {
        each.forEach((answer, at) => {
          answers[group.places[at]!] = answer
        })
      })
    }, { concurrency: "inherit", discard: true }).pipe(Effect.withConcurrency(16), Effect.as(answers))
  }

  private noteAppetite(worker: Attached, isWanting: boolean): void {
    Hunger.note(this.clock, worker.appetite, isWanting, {
      look: () => worker.out >= worker.credit && this.isAwaited(worker),
      tell: (hungry) => {
        if (this.attached.get(worker.id) === worker) worker.deliver({ _tag: "hungry", hungry })
      }
    })
  }

  /** Ready runs wait for slots that it could execute. */
  private isAwaited(worker: Attached): boolean {
    for (const actor of this.waiting) if (actor.machine.hasReadyAmong(worker.tasks)) return true
    return false
  }

  private recount(worker: Attached): void {
    let out = 0
    for (const actor of this.actors.values()) out += actor.machine.heldBy(worker.id)
    worker.out = out
    this.mayRefill(worker)
  }

  private mayRefill(worker: Attached): void {
    if (worker.out <= worker.credit + worker.ahead / 2) worker.isRefilling = true
  }

  private wake(worker: Attached): void {
    for (const actor of this.actors.values()) if (actor.machine.hasReadyAmong(worker.tasks)) actor.schedule()
  }

  private lose(worker: Attached, graceMs: number): void {
    this.drop(worker)
    if (this.isClosing) return
    for (const actor of this.actors.values()) actor.doubt(worker.id, graceMs)
  }

  private drop(worker: Attached): void {
    this.attached.delete(worker.id)
    for (const task of worker.tasks) {
      const rest = (this.byTask.get(task) ?? []).filter((each) => each !== worker)
      if (rest.length === 0) this.byTask.delete(task)
      else this.byTask.set(task, rest)
    }
    worker.closed()
  }
}

const withoutTrace = (assignment: Assignment): Assignment => ({ ...assignment, trace: undefined })

const unavailable = (operation: string) => (error: StoreUnavailable) =>
  new ClusterUnavailable({ operation, reason: error.message })

const notOwned = (operation: string) =>
  new ClusterUnavailable({ operation, reason: "the partition is not owned by this node" })

const ownedBy = ({ epoch, machine, partitionId }: QueueActor, worker: string): ToWorker => ({
  _tag: "owned",
  partitionId,
  expects: machine.heldBy(worker),
  epoch
})

const slotsFree = ({ credit, out }: Attached): number => Math.max(0, credit - out)

/** How many more it may be given now. A free slot does not wait for company. */
const roomOf = ({ ahead, credit, isRefilling, out }: Attached): number =>
  out < credit || isRefilling ? Math.max(0, credit + ahead - out) : 0

/** A free slot before a place in line; then where there is more of it. */
const isBetter = (a: Attached, b: Attached): boolean => {
  const freeA = slotsFree(a)
  const freeB = slotsFree(b)
  return freeA === freeB ? roomOf(a) > roomOf(b) : freeA > freeB
}
