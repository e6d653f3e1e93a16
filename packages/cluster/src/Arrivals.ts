/**
 * New runs on their way to the journal: from the call that brings them to the commit that makes them durable. Bounded in
 * runs and in bytes of payload; beyond, `Overloaded`.
 */
import { Overloaded, type QueueFull, type QuotaExceeded } from "@orrery/core/Errors"
import type { Claim } from "@orrery/core/Identity"
import type { StoredRun } from "@orrery/core/Journal"
import { linesMax } from "@orrery/core/Lines"
import type { QueueMachine } from "@orrery/core/QueueMachine"
import type { RunId } from "@orrery/core/RunId"
import { isOrdered, lineOf } from "@orrery/core/RunKeys"
import type { RunRequest } from "@orrery/core/RunRequest"
import { type NotOwner, notOwner, type RowAnswer } from "./ActorHost.js"

/** Runs of one commit of one actor. */
const batchRowsMax = 1_000
/** Payload bytes of one commit of one actor: 4 MiB. */
const batchBytesMax = 4 * 1024 * 1024
/** Batches under way: two at the database, the third made meanwhile. */
const inFlightMax = 3
/** Enqueued runs that wait for their commit. */
const pendingRunsMax = 20_000
/** Bytes of the same: 32 MiB. */
const pendingBytesMax = 32 * 1024 * 1024
const retryAfterMs = 200

/** The answer that a caller waits for. */
export interface Place {
  readonly to: {
    set(at: number, answer: RowAnswer | NotOwner): void
    /** Its id is another run's, or its identity key is. Of those with a claim only. */
    taken?(): void
  }
  readonly at: number
}

export interface Arrival {
  readonly run: StoredRun
  readonly resend: boolean
  readonly origin?: RunId
  readonly claim: Claim | undefined
  readonly fromInbox: boolean
  readonly place: Place
  /** The same request came again before the commit. */
  others: Array<Place> | undefined
}

/**
 * An earlier copy of a request that is sent again may have been stored. That is not known here, so it must not be told
 * that nothing was: it is asked for again, until there is room to find out.
 */
export const refusalOf = <E extends Overloaded | QueueFull | QuotaExceeded>(
  { resend }: { readonly resend: boolean },
  refusal: E
): E | NotOwner => resend ? notOwner : refusal

const answer = ({ others, place }: Arrival, answer: RowAnswer | NotOwner): void => {
  place.to.set(place.at, answer)
  if (others !== undefined) { for (const other of others) other.to.set(other.at, answer) }
}

export class Arrivals {
  private waiting: Array<Arrival> = []
  /** Those that wait and those under way. */
  private readonly unanswered = new Map<RunId, Arrival>()
  private bytes = 0
  private inFlight = 0
  /** Unanswered runs with an ordering key: with any, batches go one after the other, for two could be committed in either order. */
  private ordered = 0

  get isEmpty(): boolean {
    return this.unanswered.size === 0
  }

  /**
   * This very row is or may be stored by now, but nobody has been told: it is no run yet. A row of the same id with another
   * number is not meant: that one came with an earlier copy of the request, and is a run already.
   */
  isArriving(id: RunId, seq: number): boolean {
    return this.unanswered.get(id)?.run.seq === seq
  }

  /** Nothing is at the store. */
  get isStill(): boolean {
    return this.inFlight === 0
  }

  /** `keys` of those that wait and those under way. */
  *keys(): Generator<string | null> {
    for (const { run } of this.unanswered.values()) yield run.keys
  }

  /** A request for this run is on its way to the store, or has reached it unanswered. */
  has(id: RunId): boolean {
    return this.unanswered.has(id)
  }

  /** Its request was found good. `now` is the database's. True: it is one more; else it is answered, or will be with its twin. */
  add(request: RunRequest, now: number, machine: QueueMachine, { at, to }: Place, claim?: Claim): boolean {
    const twin = this.unanswered.get(request.id)
    if (twin !== undefined) {
      twin.others ??= []
      twin.others.push({ to, at })
      return false
    }
    const overloaded = this.overloaded(request.payload.length)
    if (overloaded !== undefined) {
      to.set(at, refusalOf(request, overloaded))
      return false
    }
    const line = lineOf(request.task, request.keys)
    if (request.keys !== null && !machine.hasRoomFor(line)) {
      const what = `distinct keys with waiting runs in ${request.namespace}/${request.queue}`
      const full = new Overloaded({ what, limit: linesMax, actual: linesMax, retryAfterMs })
      to.set(at, refusalOf(request, full))
      return false
    }
    if (isOrdered(line)) this.ordered += 1
    const arrival = {
      run: runOf(request, line, now, machine),
      resend: request.resend,
      ...request.origin === undefined ? undefined : { origin: request.origin },
      claim,
      fromInbox: request.fromInbox === true,
      place: { to, at },
      others: undefined
    }
    this.bytes += request.payload.length
    this.unanswered.set(request.id, arrival)
    this.waiting.push(arrival)
    return true
  }

  /** The next batch to be committed, all from the inbox or none; `undefined` when it is better to wait. */
  take(): ReadonlyArray<Arrival> | undefined {
    // A second batch beside the first only when it is full: half of one would rather grow.
    const besides = this.ordered === 0 && this.inFlight < inFlightMax && this.waiting.length >= batchRowsMax
    const mayGo = this.inFlight === 0 || besides
    if (this.waiting.length === 0 || !mayGo) return undefined
    let count = 0
    let bytes = 0
    const { fromInbox } = this.waiting[0]!
    for (const { fromInbox: isSame, run } of this.waiting) {
      if (count >= batchRowsMax || (count > 0 && bytes + run.payload.length > batchBytesMax)) break
      if (isSame !== fromInbox) break
      count += 1
      bytes += run.payload.length
    }
    this.bytes -= bytes
    this.inFlight += 1
    return this.waiting.splice(0, count)
  }

  /** What became of a batch that was taken. */
  settle(batch: ReadonlyArray<Arrival>, result: "stored" | Overloaded, duplicates?: ReadonlySet<RunId>): void {
    this.inFlight -= 1
    for (const arrival of batch) {
      this.unanswered.delete(arrival.run.id)
      if (arrival.run.keys !== null && isOrdered(lineOf(arrival.run.task, arrival.run.keys))) this.ordered -= 1
      if (arrival.claim !== undefined && duplicates?.has(arrival.run.id) === true) arrival.place.to.taken!()
      else answer(arrival, result === "stored" ? result : refusalOf(arrival, result))
    }
  }

  /** The actor ends: the fate of all is unknown. */
  abandon(result: NotOwner): void {
    for (const arrival of this.unanswered.values()) answer(arrival, result)
    this.unanswered.clear()
    this.waiting = []
  }

  private overloaded(bytes: number): Overloaded | undefined {
    const refuse = (what: string, limit: number, actual: number) =>
      new Overloaded({ what, limit, actual, retryAfterMs })
    if (this.waiting.length >= pendingRunsMax) {
      return refuse("runs waiting to be written", pendingRunsMax, this.waiting.length)
    }
    return this.bytes + bytes > pendingBytesMax
      ? refuse("bytes waiting to be written", pendingBytesMax, this.bytes)
      : undefined
  }
}

const runOf = (request: RunRequest, line: string, now: number, machine: QueueMachine): StoredRun => {
  const { _tag, ms } = request.when
  // Whole milliseconds: `ceil`, so that no run is early by a fraction.
  const scheduledAt = Math.ceil(_tag === "delay" ? now + ms : Math.max(ms, 0))
  const isDue = _tag === "delay" ? ms === 0 : scheduledAt <= now
  const seq = machine.numbers.next()
  const dueAt = isDue ? Math.floor(now) : scheduledAt
  return {
    id: request.id,
    seq,
    task: request.task,
    priority: request.priority,
    createdAt: Math.floor(now),
    payload: request.payload,
    policy: request.policy,
    keys: request.keys,
    trace: request.trace,
    state: isDue ? "ready" : "scheduled",
    scheduledAt: dueAt,
    orderKey: machine.orderKeyOf({ line, scheduledAt: dueAt, priority: request.priority, seq }),
    attempt: 0,
    crashes: 0,
    lease: 0,
    worker: null,
    failure: null,
    startedAt: null
  }
}
