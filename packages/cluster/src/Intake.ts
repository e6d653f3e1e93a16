/**
 * What requests pass on their way to the arrivals: whether another run stands for them, and whether there is room.
 *
 * Requests of one identity key are dealt with one after the other, so that at most one of them is on its way to the store; what they
 * are decided by is read in bulk, for all keys that wait for it. Requests without identity and bound go straight on.
 *
 * A bound of the depth needs a count, and a count needs a store that stands still: `holdsCommits`. That is a moment, once per
 * ownership, of queues that have a bound (`Depths`).
 */
import { countUpTo, Depths } from "@orrery/core/Depths"
import { Overloaded, type StoreUnavailable } from "@orrery/core/Errors"
import { type Claim, debouncedUntil, expiryOf, type IdentityRule, type Life, lifeOf } from "@orrery/core/Identity"
import { looksAtRun, type StoredIdentity, verdictOf } from "@orrery/core/Identity"
import type { Edit, Entry, Waiter } from "@orrery/core/Entry"
import type { PartitionName } from "@orrery/core/PartitionStore"
import type { QueueMachine } from "@orrery/core/QueueMachine"
import type { RunId } from "@orrery/core/RunId"
import { backlogOf, ruleOf, type RunRequest } from "@orrery/core/RunRequest"
import { Effect, Exit } from "effect"
import { type ActorHost, type NotOwner, notOwner, type RowAnswer, SameAs } from "./ActorHost.js"
import { type Arrival, Arrivals, type Place, refusalOf } from "./Arrivals.js"

/** Requests that wait for a read, for a count, or for the one before them. */
const waitingMax = 20_000
/** Bytes of their payloads: 32 MiB. */
const waitingBytesMax = 32 * 1024 * 1024
/** Keys of one read. */
const keysPerRead = 500
/** Rows of keys kept in memory; the oldest go first. */
const knownMax = 20_000
/** Times that the store may say otherwise than was read, before the caller must ask anew. */
const triesMax = 3
/** Keys forgotten at a time, and how often that is looked at, ms. */
const prunedAtOnce = 1_000
const pruneEveryMs = 60_000
const retryAfterMs = 200

/** The actor whose requests they are. */
export interface IntakeOwner {
  readonly machine: QueueMachine
  readonly partitionId: number
  readonly name: PartitionName
  readonly isStopped: boolean
  /** What has been decided is to be carried out soon. */
  readonly schedule: () => void
  /** The waiter is told when the last known change of the run is committed. */
  readonly wait: (entry: Entry, waiter: Waiter) => void
}

type Row = Pick<StoredIdentity, "runId" | "expiresAt" | "firstAt">
/** `null`: the store has none. */
type Known = Row | null

interface Asked {
  readonly request: RunRequest
  readonly place: Place
  tries: number
}

/** The requests of one key, in the order in which they came. */
class Lane {
  readonly asked: Array<Asked> = []
  /** The first is on its way to the store. */
  isOut = false
  isTurning = false
  /** What was read, for the turn that follows. */
  found: { readonly run: StoredIdentity["run"]; readonly gone: ReadonlySet<RunId> } | undefined
  constructor(readonly id: string, readonly task: string, readonly key: string, private readonly intake: Intake) {}

  set(_: number, answer: RowAnswer | NotOwner): void {
    this.intake.answered(this, answer)
  }

  taken(): void {
    this.intake.taken(this)
  }
}

interface Held {
  readonly request: RunRequest
  readonly place: Place
  readonly claim: Claim | undefined
}

export class Intake {
  readonly arrivals = new Arrivals()
  private readonly depths: Depths
  private readonly lanes = new Map<string, Lane>()
  private readonly known = new Map<string, Known>()
  private toRead: Array<Lane> = []
  private isReading = false
  private held: Array<Held> = []
  private countUpTo = 0
  private isCounting = false
  private waiting = 0
  private bytes = 0
  private pruneAt = Infinity

  constructor(private readonly owner: IntakeOwner, private readonly host: Pick<ActorHost, "store" | "fork" | "clock">) {
    this.depths = new Depths(owner.name)
  }

  get isEmpty(): boolean {
    return this.arrivals.isEmpty && this.lanes.size === 0 && this.held.length === 0 && !this.isReading &&
      !this.isCounting
  }

  /** Its request was found good. `now` is the database's. */
  add(request: RunRequest, now: number, place: Place): void {
    if (request.identity === undefined) return this.enter(request, now, place, undefined)
    const overloaded = this.overloaded(request)
    if (overloaded !== undefined) return place.to.set(place.at, refusalOf(request, overloaded))
    const id = `${request.task}|${request.identity}`
    let lane = this.lanes.get(id)
    if (lane === undefined) {
      lane = new Lane(id, request.task, request.identity, this)
      this.lanes.set(id, lane)
    }
    this.waiting += 1
    this.bytes += request.payload.length
    if (lane.asked.push({ request, place, tries: 0 }) === 1) this.turn(lane)
  }

  private overloaded({ payload }: RunRequest): Overloaded | undefined {
    if (this.waiting >= waitingMax) {
      const what = "requests waiting for a decision"
      return new Overloaded({ what, limit: waitingMax, actual: this.waiting, retryAfterMs })
    }
    const what = "bytes waiting for a decision"
    return this.bytes + payload.length > waitingBytesMax
      ? new Overloaded({ what, limit: waitingBytesMax, actual: this.bytes, retryAfterMs })
      : undefined
  }

  /** On to the arrivals, if there is room. */
  private enter(request: RunRequest, now: number, place: Place, claim: Claim | undefined): void {
    const backlog = this.owner.machine.control.rules.backlog ?? backlogOf(request)
    const refusal = backlog === undefined || this.arrivals.has(request.id)
      ? undefined
      : this.isCounting
      ? "count"
      : this.depths.refusal(backlog, request.keys)
    if (refusal === "count") {
      const overloaded = claim === undefined ? this.overloaded(request) : undefined
      if (overloaded !== undefined) return place.to.set(place.at, refusalOf(request, overloaded))
      this.countUpTo = Math.max(this.countUpTo, countUpTo(backlog!))
      this.waiting += 1
      this.bytes += request.payload.length
      this.held.push({ request, place, claim })
      return
    }
    if (refusal !== undefined) return place.to.set(place.at, refusalOf(request, refusal))
    const isOneMore = this.arrivals.add(request, now, this.owner.machine, place, claim)
    if (isOneMore) this.depths.took(request.keys)
  }

  /** Deals with the requests of a key, as far as that is possible now. */
  private turn(lane: Lane): void {
    if (lane.isTurning) return
    lane.isTurning = true
    while (lane.asked.length > 0 && !lane.isOut) {
      const asked = lane.asked[0]!
      // Stored by an earlier sending of the same request.
      if (this.owner.machine.knows(asked.request.id)) this.answer(lane, "stored")
      else if (!this.decide(lane, asked, this.known.get(lane.id))) break
    }
    lane.found = undefined
    lane.isTurning = false
    if (lane.asked.length === 0) this.lanes.delete(lane.id)
  }

  /** False: it must be read first. */
  private decide(lane: Lane, asked: Asked, known: Known | undefined): boolean {
    const { request } = asked
    const now = this.host.clock.now()
    if (known === undefined) return this.wantRead(lane)
    if (known?.runId === request.id) {
      this.answer(lane, "stored")
      return true
    }
    const rule = ruleOf(request)
    const life = known === null ? "final" : looksAtRun(rule) ? this.lifeOf(lane, known.runId, now) : "final"
    if (life === undefined) return this.wantRead(lane)
    const verdict = known === null ? "new" : verdictOf(rule, known.expiresAt, life, now)
    if (verdict === "same") this.answer(lane, new SameAs(known!.runId))
    else if (verdict === "edit") return this.edit(lane, asked, rule, known!, now)
    else if (known !== null && this.awaits(lane, known.runId)) return true
    else if (asked.tries >= triesMax) this.answer(lane, notOwner)
    else this.send(lane, asked, rule, known, now)
    return true
  }

  /** What the run has begun or ended is not durable yet: a crash could undo it, so no other run is made on the strength of it. */
  private awaits(lane: Lane, id: RunId): boolean {
    const entry = this.owner.machine.find(id)
    if (entry === undefined || (entry.unwritten === undefined && entry.sent === undefined)) return false
    lane.isOut = true
    this.owner.wait(entry, {
      next: undefined,
      told: () => {
        lane.isOut = false
        this.turn(lane)
      }
    })
    return true
  }

  /** `undefined`: not known. */
  private lifeOf({ found }: Lane, id: RunId, now: number): Life | undefined {
    const entry = this.owner.machine.find(id)
    if (entry !== undefined) {
      // Its end is not committed yet.
      if (entry.place === "finishing") return { state: "running", attempt: Math.max(1, entry.attempt) }
      return lifeOf(entry, now)
    }
    if (found === undefined || found.gone.has(id)) return undefined
    return found.run?.id === id ? lifeOf(found.run, now) : "final"
  }

  private send(lane: Lane, { request }: Asked, rule: IdentityRule, known: Known, now: number): void {
    const claim: Claim = {
      key: lane.key,
      expiresAt: expiryOf(rule, now),
      firstAt: Math.floor(now),
      replaces: known === null ? null : known.runId
    }
    lane.isOut = true
    if (this.pruneAt === Infinity) this.pruneAt = now + pruneEveryMs
    this.enter(request, now, { to: lane, at: 0 }, claim)
  }

  /** The first of a lane has been answered by the arrivals. */
  answered(lane: Lane, answer: RowAnswer | NotOwner): void {
    lane.isOut = false
    if (lane.asked.length > 0) this.answer(lane, answer)
    this.turn(lane)
  }

  /** It was not made: the store knows better what stands for it. */
  taken(lane: Lane): void {
    lane.isOut = false
    const [asked] = lane.asked
    if (asked !== undefined) asked.tries += 1
    this.known.delete(lane.id)
    this.turn(lane)
  }

  private answer(lane: Lane, answer: RowAnswer | NotOwner): void {
    const { place, request } = lane.asked.shift()!
    this.waiting -= 1
    this.bytes -= request.payload.length
    place.to.set(place.at, answer)
  }

  /** The waiting run gets what the request brings. False: the run must be read first. */
  private edit(lane: Lane, { request }: Asked, rule: IdentityRule, known: Row, now: number): boolean {
    const { machine } = this.owner
    const { payload, priority, task } = request
    const held = machine.find(known.runId)
    const stored = lane.found?.run
    const run = held ?? stored
    if (run === undefined) return this.wantRead(lane)
    const life = lifeOf(run, now)
    const edit: Edit = rule._tag === "debounce" && life !== "final" && life.state === "scheduled"
      ? { payload, task, priority, scheduledAt: debouncedUntil(rule, known.firstAt, now) }
      : { payload, task, priority }
    const entry = machine.edit(held ?? { ...stored!, payload }, edit, now)
    if (entry === undefined) return this.wantRead(lane)
    const { place } = lane.asked[0]!
    lane.asked.shift()
    this.waiting -= 1
    this.bytes -= payload.length
    const same = new SameAs(known.runId)
    this.owner.wait(entry, {
      next: undefined,
      told: (answer) => place.to.set(place.at, answer === notOwner ? notOwner : same)
    })
    this.owner.schedule()
    return true
  }

  private wantRead(lane: Lane): false {
    this.toRead.push(lane)
    this.owner.schedule()
    return false
  }

  /** Called each turn of the actor: looks up what is not known, for all keys that wait for it. */
  read(): void {
    const now = this.host.clock.now()
    if (now >= this.pruneAt) this.prune(now)
    if (this.isReading || this.toRead.length === 0) return
    const lanes = this.toRead.splice(0, keysPerRead)
    const { machine, partitionId } = this.owner
    this.isReading = true
    const endRead = machine.beginRead()
    this.host.fork(
      Effect.map(Effect.exit(this.host.store.readIdentities(partitionId, lanes)), (exit) => {
        const gone = endRead()
        this.isReading = false
        if (this.owner.isStopped) return
        if (Exit.isFailure(exit)) { for (const lane of lanes) this.giveUp(lane) }
        else this.found(lanes, exit.value, gone)
        this.owner.schedule()
      })
    )
  }

  private found(lanes: ReadonlyArray<Lane>, rows: ReadonlyArray<StoredIdentity>, gone: ReadonlySet<RunId>): void {
    const byId = new Map(rows.map((row) => [`${row.task}|${row.key}`, row]))
    for (const lane of lanes) {
      const row = byId.get(lane.id)
      this.remember(lane.id, row ?? null)
      lane.found = { run: row?.run, gone }
      this.turn(lane)
    }
  }

  private remember(id: string, known: Known): void {
    this.known.delete(id)
    if (this.known.size >= knownMax) this.known.delete(this.known.keys().next().value!)
    this.known.set(id, known)
  }

  private giveUp(lane: Lane): void {
    while (lane.asked.length > 0) this.answer(lane, notOwner)
    this.lanes.delete(lane.id)
  }

  private prune(now: number): void {
    this.pruneAt = Infinity
    const { partitionId } = this.owner
    this.host.fork(
      Effect.match(this.host.store.pruneIdentities(partitionId, prunedAtOnce), {
        // The rows of long ago do no harm: later, then.
        onFailure: (_: StoreUnavailable) => pruneEveryMs,
        onSuccess: (count) => count < prunedAtOnce ? pruneEveryMs : 0
      }).pipe(Effect.map((pause) => {
        this.pruneAt = now + pause
      }))
    )
  }

  /** Nothing more may go to the store before it has counted. `isWriting`: changes are on their way to it. */
  holdsCommits(isWriting: boolean): boolean {
    if (this.isCounting) return true
    if (this.countUpTo === 0) return false
    if (!isWriting && this.arrivals.isStill) this.count()
    return true
  }

  private count(): void {
    const limit = this.countUpTo
    const { partitionId } = this.owner
    this.isCounting = true
    this.host.fork(
      Effect.map(Effect.exit(this.host.store.countRuns(partitionId, limit)), (exit) => {
        this.isCounting = false
        this.countUpTo = 0
        if (this.owner.isStopped) return
        const held = this.held
        this.held = []
        if (Exit.isSuccess(exit)) this.depths.begin(exit.value, this.arrivals.keys())
        for (const { claim, place, request } of held) {
          this.waiting -= 1
          this.bytes -= request.payload.length
          if (Exit.isSuccess(exit)) this.enter(request, this.host.clock.now(), place, claim)
          else place.to.set(place.at, notOwner)
        }
        this.owner.schedule()
      })
    )
  }

  /** What became of a batch that was taken. */
  settle(batch: ReadonlyArray<Arrival>, result: "stored" | Overloaded, duplicates?: ReadonlySet<RunId>): void {
    for (const { claim, run } of batch) {
      const isMade = result === "stored" && duplicates?.has(run.id) !== true
      if (!isMade) this.depths.gaveBack(run.keys)
      else if (claim !== undefined) this.remember(`${run.task}|${claim.key}`, { ...claim, runId: run.id })
    }
    this.arrivals.settle(batch, result, duplicates)
  }

  /** The end of a run is committed. */
  ended(entry: Entry): void {
    if (this.depths.isOn) this.depths.ended(entry.keys, this.host.clock.now())
  }

  /** The actor ends: the fate of all is unknown. */
  abandon(result: NotOwner): void {
    this.arrivals.abandon(result)
    for (const { place } of this.held.splice(0)) place.to.set(place.at, result)
    for (const lane of [...this.lanes.values()]) this.giveUp(lane)
  }
}
