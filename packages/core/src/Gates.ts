/**
 * What a line must pass before its head may start: permits of its concurrency keys, and the rates of
 * its rate keys.
 *
 * A gate keeps the lines that wait at it, by kind. What is free at a gate may be taken by lines that are up for a turn
 * already; the rule that loses no wake-up is: for each kind, as long as a gate has room and lines of the kind wait at it,
 * at least as many lines of the kind that pass by this gate are up as it has room for. So a line wakes another whenever it
 * stops being up without having started a run.
 */
import type { Entry } from "./Entry.js"
import { Heap } from "./Heap.js"
import type { Line } from "./Line.js"
import type { PausedKey } from "./QueueSettings.js"
import type { ConcurrencyKey, RateKey } from "./RunKeys.js"

export abstract class Gate {
  /** By kind of the head. */
  readonly waiting = new Map<string, Heap<Line>>()
  /** Lines that must pass here, wherever they are now. */
  lines = 0
  /** Place among the gates that open by time. */
  at = -1

  constructor(readonly id: string) {}

  /** How many runs may start now. */
  abstract room(now: number): number
  /** When there will be room without anybody's doing; `Infinity`: that is not known. */
  abstract opensAt(now: number): number
  /** Whether nothing would be lost if it was forgotten. */
  abstract isIdle(now: number): boolean

  park(line: Line): void {
    let heap = this.waiting.get(line.kind)
    if (heap === undefined) {
      heap = new Heap<Line>(waitsBefore)
      this.waiting.set(line.kind, heap)
    }
    heap.push(line)
    line.parkedAt = this
  }

  unpark(line: Line): void {
    const heap = this.waiting.get(line.kind)!
    heap.remove(line)
    if (heap.size === 0) this.waiting.delete(line.kind)
    line.parkedAt = undefined
  }
}

/** Room that an attempt takes up while it is out. */
export abstract class Held extends Gate {
  /** `isAdopted`: by an attempt that an owner before has started. */
  abstract hold(isAdopted: boolean): void
  abstract free(): void
}

/** Room that starts use up. */
export abstract class Counted extends Gate {
  /** A run is going to start. Answers what it costs, for `made` or `giveBack`. */
  abstract take(now: number): number
  /** Its worker is told now. */
  abstract made(cost: number, now: number): void
  /** It does not start after all. */
  abstract giveBack(cost: number): void
  /** Whether the room it took was for a start before now. */
  isLate(_cost: number): boolean {
    return false
  }
}

const waitsBefore = (a: Line, b: Line): boolean =>
  a.parkedPass !== b.parkedPass ? a.parkedPass < b.parkedPass : a.rank !== b.rank ? a.rank < b.rank : a.seq < b.seq

/** At most `limit` attempts at once. What counts are the leases that are out: nothing is to be repaired after a crash. */
export class Permit extends Held {
  running = 0
  /** Said of the queue at run time: goes before what runs say. */
  override: number | undefined
  /** Runs that do not wait when it is full, oldest first: those that are not final. */
  readonly claims = new Set<Entry>()
  /** Of the run that declared `told`. */
  private declaredBy = -1
  told: ConcurrencyKey | undefined

  /** The newest run's word counts: a deploy that changes the limit needs no other step. */
  declare(key: ConcurrencyKey, seq: number): void {
    if (seq < this.declaredBy) return
    this.declaredBy = seq
    this.told = key
  }

  get limit(): number {
    return this.override ?? this.told?.limit ?? 0
  }

  hold(): void {
    this.running += 1
  }

  free(): void {
    this.running -= 1
  }

  room(): number {
    return this.limit - this.running
  }

  opensAt(): number {
    return Infinity
  }

  isIdle(): boolean {
    return this.running === 0 && this.lines === 0 && this.claims.size === 0
  }
}

/** What is said of a rate at run time. */
export type RateOverride = Pick<RateKey, "limit" | "perMs">

/** A key whose runs are paused: nothing passes until it is taken away. */
export class Closed extends Gate {
  constructor(readonly paused: PausedKey) {
    super(`paused ${paused.of.kind}`)
  }

  room(): number {
    return 0
  }

  opensAt(): number {
    return Infinity
  }

  isIdle(): boolean {
    return false
  }
}

/** Starts counted over time. */
export class Rate extends Counted {
  private limit = 0
  private perMs = 1
  private isWindow = true
  private cost = 1
  private declaredBy = -1
  told: RateKey | undefined
  private override: RateOverride | undefined
  /** `bucket`: what is in it, as of `filledAt`. */
  private tokens = Number.NaN
  private filledAt: number
  /** `window`: times of the last starts, oldest first, from `first` on. Each as often as it cost. */
  private starts: Array<number> = []
  private first = 0
  /** Starts that are decided, but not made: they take up room, and count from when they are made. */
  private reserved = 0

  /**
   * `takenOverAt`: when another owner may have started runs until then. It counts as if it had used up everything at that
   * moment: `undefined` when there was none.
   */
  constructor(id: string, private readonly takenOverAt: number | undefined, now: number) {
    super(id)
    this.filledAt = now
  }

  declare(key: RateKey, seq: number): void {
    if (seq < this.declaredBy) return
    this.declaredBy = seq
    this.told = key
    this.set({ ...key, ...this.override })
  }

  /** Said of the queue at run time: goes before what runs say. `undefined`: nothing is. */
  overrule(override: RateOverride | undefined): void {
    this.override = override
    if (this.told !== undefined) this.set({ ...this.told, ...override })
  }

  set(key: RateKey): void {
    this.limit = key.limit
    this.perMs = key.perMs
    this.isWindow = key.algorithm !== "bucket"
    // A limit that was lowered below the cost lets one start at a time, not none.
    this.cost = Math.min(key.cost ?? 1, key.limit)
    if (Number.isNaN(this.tokens)) {
      this.tokens = this.takenOverAt === undefined ? key.limit : 0
      if (this.takenOverAt !== undefined) this.filledAt = this.takenOverAt
    }
  }

  take(now: number): number {
    const { cost } = this
    this.reserved += cost
    if (!this.isWindow) {
      this.fill(now)
      this.tokens -= cost
    }
    return cost
  }

  made(cost: number, now: number): void {
    this.reserved -= cost
    if (!this.isWindow) return
    this.forgetOld(now)
    for (let each = 0; each < cost; each++) this.starts.push(now)
  }

  /** A bucket has refilled meanwhile, and keeps the token: rather too few than too many. */
  giveBack(cost: number): void {
    this.reserved -= cost
  }

  room(now: number): number {
    if (!this.isWindow) {
      this.fill(now)
      return Math.floor(this.tokens / this.cost + 1e-9)
    }
    if (now < this.windowFrom) return 0
    this.forgetOld(now)
    return Math.floor((this.limit - this.used) / this.cost)
  }

  opensAt(now: number): number {
    if (this.room(now) > 0) return now
    // Rounded up: a timer that rings a fraction early would find the gate closed.
    if (!this.isWindow) return now + Math.ceil(((this.cost - this.tokens) * this.perMs) / this.limit)
    if (now < this.windowFrom) return this.windowFrom
    const mustEnd = this.used - (this.limit - this.cost)
    // Where too few of the starts have been made it is not known yet: each that is tells.
    return (this.starts[this.first + mustEnd - 1] ?? Infinity) + this.perMs
  }

  isIdle(now: number): boolean {
    if (this.lines > 0 || this.reserved > 0) return false
    if (!this.isWindow) {
      this.fill(now)
      return this.tokens >= this.limit
    }
    this.forgetOld(now)
    return this.used === 0 && now >= this.windowFrom
  }

  private get used(): number {
    return this.starts.length - this.first + this.reserved
  }

  private get windowFrom(): number {
    return this.takenOverAt === undefined ? -Infinity : this.takenOverAt + this.perMs
  }

  private fill(now: number): void {
    if (now <= this.filledAt) return
    this.tokens = Math.min(this.limit, this.tokens + ((now - this.filledAt) * this.limit) / this.perMs)
    this.filledAt = now
  }

  private forgetOld(now: number): void {
    const { starts } = this
    while (this.first < starts.length && starts[this.first]! <= now - this.perMs) this.first += 1
    if (this.first > 1_024 || this.first === starts.length) {
      this.starts = starts.slice(this.first)
      this.first = 0
    }
  }
}
