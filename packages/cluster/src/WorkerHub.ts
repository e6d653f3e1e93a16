/**
 * The workers attached to this node, and their slots, shared by all its actors.
 *
 * `out` counts the slots that attempts of this node's actors take of a worker. It is derived from what the machines hold
 * whenever a session or an actor comes or goes, and kept up by the slot in between, so it cannot drift. It may exceed the
 * node's share of the worker's slots by what the worker lets it have ahead.
 *
 * A run that takes several slots starts where so many are free at once. When it is the first of its actor and the actor's turn
 * has come, one worker is kept for it: nothing else begins there until what runs there has left enough. So cheap runs cannot
 * starve it; it waits for attempts that had begun before, and for no others.
 */
import type { WorkerPool } from "@orrery/core/Entry"
import { ClusterUnavailable, type StoreUnavailable } from "@orrery/core/Errors"
import { halfOf } from "@orrery/core/Need"
import type { NoteReport } from "@orrery/core/RunNotes"
import type { Assignment, AttemptRef, Hello, OutcomeAnswer, OutcomeReport, ToWorker } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"
import { notOwner } from "./ActorHost.js"
import { ReportAnswers } from "./Answers.js"
import { type Attached, isBetter, ownedBy, roomOf, slotsFree, slotsOf } from "./Attached.js"
import { groupByPartition } from "./groupByPartition.js"
import * as Hunger from "./Hunger.js"
import type { QueueActor } from "./QueueActor.js"

/** Workers one node serves. */
export const workersMax = 10_000
/** Partitions whose notes of one message are written at once. */
const partitionsAtOnce = 16

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
  /** Answers the slots that are out. Of a worker of an earlier release the last two are left out: it reads no trace, knows no cost. */
  readonly setCredit: (credit: number, ahead: number, readsTrace?: boolean, slots?: number) => number
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
  /** The worker that is kept for a run of an actor. */
  private readonly reserved = new Map<QueueActor, Attached>()
  /** Actors with runs of backfills that wait for others of them to end. */
  private readonly holding = new Set<QueueActor>()
  /** Number of the dispatch that is going on, and whether it still wants what is kept for it. */
  private dispatchNo = 0
  private isRenewed = false
  /** What was kept is free for others. */
  private hasReleased = false
  /** Attempts, in all, that workers did not hold any more when they were asked by `ask`: they were given out again. */
  forgotten = 0

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
      slots: 0,
      out: 0,
      reservedFor: undefined,
      refusedIn: -1,
      isRefilling: true,
      appetite: Hunger.sated(),
      asked: new Set(),
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
        return this.outcomes(reports)
      },
      note: (reports) => {
        seen()
        return Effect.mapError(this.noted(reports), unavailable("note"))
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
        const answer = this.actors.get(partitionId)?.announce(worker.id, held)
        if (worker.asked.delete(partitionId)) this.forgotten += answer?.takenBack ?? 0
        this.recount(worker)
        return answer?.stale
      },
      setCredit: (credit, ahead, readsTrace = false, slots = 0) => {
        seen()
        worker.readsTrace = readsTrace
        worker.slots = slots
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
    this.holding.delete(actor)
    this.release(actor)
    for (const worker of this.attached.values()) {
      this.recount(worker)
      // Its runs wait elsewhere now: without this word the node would keep the slots it asked for on their account.
      if (this.awaited(worker) === 0) this.noteAppetite(worker, 0)
    }
    for (const other of this.actors.values()) other.schedule()
  }

  /** Asks a worker what it holds of a partition: what is counted as running there, and is not, goes to others. */
  ask(actor: QueueActor, workerId: string): void {
    const worker = this.attached.get(workerId)
    if (worker === undefined || this.actors.get(actor.partitionId) !== actor) return
    worker.asked.add(actor.partitionId)
    actor.doubt(workerId, Infinity)
    worker.deliver(ownedBy(actor, workerId))
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

  /** Slots of the largest worker that has a handler for the task; those that know no cost count as one. `undefined`: there is none. */
  slotsFor(task: string): number | undefined {
    return this.byTask.get(task)?.reduce((most, worker) => Math.max(most, slotsOf(worker)), 0)
  }

  /** Whether free slots of the worker are kept for a run that takes more than there are. */
  isReserved(workerId: string): boolean {
    return this.attached.get(workerId)?.reservedFor !== undefined
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
      take: (task, isSuspect, need) => this.take(actor, task, isSuspect ? slotsFree : roomOf, need?.slots ?? 1),
      hasRoom: (task, isSuspect, need) => {
        const room = isSuspect ? slotsFree : roomOf
        for (const worker of this.byTask.get(task) ?? []) if (room(worker) >= (need?.slots ?? 1)) return true
        return false
      },
      holds: (task, { slots }) => this.isHalfTaken(task, slots),
      isBehind: (workerId) => {
        const worker = this.attached.get(workerId)
        return worker !== undefined && worker.out > worker.credit
      }
    }
  }

  private take(
    actor: QueueActor,
    task: string,
    room: (worker: Attached) => number,
    slots: number
  ): string | undefined {
    const candidates = this.byTask.get(task)
    if (candidates === undefined) return undefined
    if (slots > 1) return this.takeMany(actor, candidates, slots)
    let best: Attached | undefined
    for (const worker of candidates) {
      if (room(worker) > 0 && (best === undefined || isBetter(worker, best)) && this.isTurnOf(actor, worker)) {
        best = worker
      }
    }
    if (best !== undefined) return this.taken(actor, best, 1)
    if (actor.machine.lines.hasNeeds) this.refuse(candidates)
    return undefined
  }

  private taken(actor: QueueActor, worker: Attached, slots: number): string {
    worker.out += slots
    if (worker.out >= worker.credit + worker.ahead) worker.isRefilling = false
    if (this.turn?.actor === actor) this.turn.left -= slots
    if (this.waiting.delete(actor)) this.waiting.add(actor)
    return worker.id
  }

  /** Where so many are free; else the worker with most of them is kept, if no run of this dispatch comes first there. */
  private takeMany(actor: QueueActor, candidates: ReadonlyArray<Attached>, slots: number): string | undefined {
    let best: Attached | undefined
    let next: Attached | undefined
    const before = this.reserved.get(actor)
    for (const worker of candidates) {
      const { credit, out, refusedIn, reservedFor } = worker
      if (credit < slots || worker.slots < slots || (reservedFor !== undefined && reservedFor !== actor)) continue
      // What is kept for it is its own, whoever's turn it is by now.
      if (reservedFor === undefined && !this.isTurnOf(actor, worker)) continue
      const free = credit - out
      if (free >= slots) {
        if (best === undefined || free > best.credit - best.out) best = worker
      } else if (refusedIn !== this.dispatchNo && (next === undefined || next !== before)) {
        if (next === undefined || worker === before || free > next.credit - next.out) next = worker
      }
    }
    if (best !== undefined) {
      this.release(actor)
      return this.taken(actor, best, slots)
    }
    this.refuse(candidates)
    if (next === undefined || this.isRenewed) return undefined
    if (next !== before) this.release(actor)
    next.reservedFor = actor
    this.reserved.set(actor, next)
    this.isRenewed = true
    return undefined
  }

  /** A later run of this dispatch may not have these kept for it: this one comes first. */
  private refuse(candidates: ReadonlyArray<Attached>): void {
    for (const worker of candidates) worker.refusedIn = this.dispatchNo
  }

  private release(actor: QueueActor): void {
    const worker = this.reserved.get(actor)
    if (worker === undefined) return
    worker.reservedFor = undefined
    this.reserved.delete(actor)
    this.hasReleased = true
  }

  /**
   * Runs of backfills have at most half of the slots that this node has of the workers for their task; one of them may always run.
   * Counted anew each time, from what the machines hold.
   */
  private isHalfTaken(task: string, slots: number): boolean {
    const { most, taken } = this.backfillsOf(task)
    return taken > 0 && taken + slots > most
  }

  /** Of the workers for a task: the half that is for backfills, and how many slots their runs take. */
  backfillsOf(task: string): { readonly most: number; readonly taken: number } {
    const candidates = this.byTask.get(task) ?? []
    let taken = 0
    for (const { machine: { leases } } of this.actors.values()) {
      if (leases.backfills > 0) { for (const { id } of candidates) taken += leases.backfillSlotsOf(id) }
    }
    return { most: halfOf(candidates.reduce((sum, { credit }) => sum + credit, 0)), taken }
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
      // One that only waits until enough is free takes nothing now.
      if (other.machine.wants(worker.tasks, Math.max(1, worker.credit - worker.out)) === 0) continue
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
      if (roomOf(worker) > 0 || worker.reservedFor !== undefined) isRoom = true
    }
    if (isRoom) { for (const actor of this.waiting) actor.schedule() }
    for (const actor of this.holding) actor.schedule()
  }

  /** After each dispatch: whether the actor still waits for slots, and whose share it would use more of. */
  wanting(actor: QueueActor, isOpen: boolean): void {
    if (this.turn?.actor === actor) this.turn = undefined
    this.dispatchNo += 1
    // What it was kept for has gone another way.
    if (!this.isRenewed) this.release(actor)
    this.isRenewed = false
    if (isOpen && actor.machine.lines.holdsBackfills) this.holding.add(actor)
    else if (this.holding.size > 0) this.holding.delete(actor)
    let isWaiting = false
    for (const worker of this.attached.values()) {
      const need = isOpen ? actor.machine.wants(worker.tasks, slotsOf(worker)) : 0
      if (need > 0) isWaiting = true
      const isFull = worker.out + Math.max(1, need) > worker.credit
      // One actor with nothing to do does not speak for the others: a slot must be free too.
      if (isFull === (need > 0)) this.noteAppetite(worker, need)
    }
    if (isWaiting) this.waiting.add(actor)
    // It may have been the one the others gave way to.
    else if (this.waiting.delete(actor)) this.hasReleased = true
    if (!this.hasReleased) return
    this.hasReleased = false
    for (const other of this.waiting) other.schedule()
  }

  /** Of the actors of their partitions, in the order of the reports. Each actor hears of its own at once: none waits for another's commit. */
  private outcomes(reports: ReadonlyArray<OutcomeReport>): Effect.Effect<ReadonlyArray<OutcomeAnswer>> {
    return Effect.async((resume) => {
      if (reports.length === 0) return resume(Effect.succeed([]))
      const answers = new ReportAnswers(reports.length, (all) => resume(Effect.succeed(all)))
      for (const [partitionId, { items, places }] of groupByPartition(reports)) {
        const actor = this.actors.get(partitionId)
        if (actor !== undefined) actor.outcomes(items, places, answers)
        else for (const place of places) answers.set(place, notOwner)
      }
    })
  }

  /** The same of notes. */
  private noted(
    reports: ReadonlyArray<NoteReport>
  ): Effect.Effect<ReadonlyArray<OutcomeAnswer>, StoreUnavailable> {
    const answers: Array<OutcomeAnswer> = reports.map(() => notOwner)
    return Effect.forEach(groupByPartition(reports), ([partitionId, { items, places }]) => {
      const actor = this.actors.get(partitionId)
      if (actor === undefined) return Effect.void
      return Effect.map(actor.notes.note(items), (each) => {
        each.forEach((answer, at) => {
          answers[places[at]!] = answer
        })
      })
    }, { concurrency: partitionsAtOnce, discard: true }).pipe(Effect.as(answers))
  }

  private noteAppetite(worker: Attached, need: number): void {
    Hunger.note(this.clock, worker.appetite, need, {
      look: () => {
        const found = this.awaited(worker)
        return worker.out + found > worker.credit ? found : 0
      },
      tell: (told) => {
        if (this.attached.get(worker.id) !== worker) return
        worker.deliver({ _tag: "hungry", hungry: told > 0, need: told > 1 && worker.slots > 0 ? told : undefined })
      }
    })
  }

  /** Most slots that one of the ready runs takes that it could execute, and that wait for slots; 0: none does. */
  private awaited(worker: Attached): number {
    let most = 0
    for (const actor of this.waiting) most = Math.max(most, actor.machine.wants(worker.tasks, slotsOf(worker)))
    return most
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
    for (const actor of this.actors.values()) {
      if (actor.machine.wants(worker.tasks, slotsOf(worker)) > 0 || this.holding.has(actor)) actor.schedule()
    }
  }

  private lose(worker: Attached, graceMs: number): void {
    this.drop(worker)
    if (this.isClosing) return
    for (const actor of this.actors.values()) actor.doubt(worker.id, graceMs)
  }

  private drop(worker: Attached): void {
    this.attached.delete(worker.id)
    if (worker.reservedFor !== undefined) this.release(worker.reservedFor)
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
  new ClusterUnavailable({ operation, reason: "the attempt is not one that this node counts as running" })
