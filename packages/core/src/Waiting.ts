/**
 * Where the runs of a partition wait, as far as they are in memory: the ready ones in their lines, the others in one window by
 * the time they wait for. Keeps both filled from the store, page by page.
 *
 * A run whose time has come moves to its line at once, while the store still has it among the timers. That is enough as long
 * as it stays in memory (`inStoredLine`); before it may leave, it is written.
 */
import { type Edit, type Entry, entryOf, type Load } from "./Entry.js"
import type { StoredRun } from "./Journal.js"
import type { Line } from "./Line.js"
import type { Lines } from "./Lines.js"
import type { Taken } from "./MachineOptions.js"
import { type Numbers, wasStarted } from "./Numbers.js"
import type { RunId } from "./RunId.js"
import { isOrdered, lineOf } from "./RunKeys.js"
import { type Seat, seatOf, Window, type WindowLimits } from "./Window.js"

/** How long due runs stay unread while the line of ready ones is full. */
const holdBackMs = 200

/** The runs in memory, kept by the machine. */
export interface WaitingHost {
  readonly has: (id: RunId) => boolean
  readonly add: (entry: Entry) => void
  /** It leaves memory: the store has it where it waits. At its keys it counts again when it is read again. */
  readonly forget: (entry: Entry) => void
  /** It has lost its place, and must be written before it gets another one. */
  readonly settle: (entry: Entry) => void
  /** It has got a seat in its line. */
  readonly seated: (entry: Entry) => void
  readonly load: (load: Load) => void
  readonly numbers: Numbers
  readonly orderKeyOf: (entry: Entry) => number
}

export interface Arriving {
  readonly isArriving: (id: RunId, seq: number) => boolean
}

export class Waiting {
  private readonly timers: Window<Entry>
  /** Whether the lines found at the take-over have been asked for. */
  private isBegun = false
  /** Per page, or other look at the store, being read: the runs that left memory since it was asked for. It may still show them. */
  private readonly departed = new Map<object, Set<RunId>>()
  /** Ready runs that the store still has among the timers. */
  private dueCount = 0
  /** When more of them are read though the line is full; `Infinity` while it is not. */
  private heldBackUntil = Infinity

  constructor(
    private readonly lines: Lines,
    private readonly limits: WindowLimits,
    taken: Pick<Taken, "lines" | "hasTimers">,
    private readonly host: WaitingHost
  ) {
    this.timers = new Window(limits, !taken.hasTimers)
    for (const line of taken.lines) lines.open(line, false)
  }

  /** Nothing waits that is not in memory, and nothing is being read. */
  get isEmpty(): boolean {
    if (!this.timers.complete || this.departed.size > 0) return false
    for (const { window } of this.lines) if (!window.complete) return false
    return true
  }

  /** Beyond the edge of its window the store has it, and that is all: no entry is made of most of a backlog. */
  wouldHold(run: StoredRun): boolean {
    const line = lineOf(run.task, run.keys)
    if (run.state !== "ready" && !isOrdered(line)) return this.timers.accepts(run.scheduledAt, run.seq)
    return this.lines.get(line)?.window.accepts(run.orderKey, run.seq) ?? true
  }

  /** As it is stored. False: it sorts beyond what is in memory. */
  enter(entry: Entry, now: number): boolean {
    entry.inStoredLine = true
    return entry.state === "ready" || isOrdered(entry.line)
      ? this.enterLine(entry, now)
      : this.seat(this.timers, entry, "timer", entry.scheduledAt)
  }

  /** Those whose time has come. */
  moveDue(now: number): void {
    for (;;) {
      const head = this.timers.peek()
      if (head === undefined || head.key > now) return
      this.timers.remove(head)
      const entry = head.item
      entry.seat = undefined
      entry.inStoredLine = false
      entry.state = "ready"
      if (!this.enterLine(entry, now)) this.host.settle(entry)
    }
  }

  /** Asks for the pages that are wanted. */
  fill(now: number): void {
    if (!this.timers.needsLoad()) this.heldBackUntil = Infinity
    else if (!this.isHeldBack(now)) this.load(undefined)
    for (const line of this.lines.plain) this.shrunk(line, now, true)
    if (!this.isBegun) {
      this.isBegun = true
      for (const line of this.lines) this.shrunk(line, now)
    }
  }

  nextTick(): number {
    return Math.min(this.timers.peek()?.key ?? Infinity, this.heldBackUntil)
  }

  /** The first of its line starts; `shortened` follows. */
  take(line: Line, entry: Entry): void {
    line.window.remove(entry.seat!)
    if (!entry.inStoredLine) this.dueCount -= 1
  }

  shortened(line: Line): void {
    if (line.window.needsLoad()) this.load(line)
    else if (line.isKeyed && line.window.size === 0) this.lines.closeIfEmpty(line)
  }

  /** Its place is free, if it had one. */
  leave(entry: Entry, now: number): void {
    if (entry.place === "timer") return this.timers.remove(entry.seat!)
    if (entry.place !== "ready") return
    const line = this.lines.get(entry.line)!
    this.take(line, entry)
    this.lines.place(line, now)
    this.shrunk(line, now)
  }

  edit(run: Entry | StoredRun, { payload, priority, scheduledAt, task }: Edit, now: number): Entry | undefined {
    const entry = "place" in run ? run : entryOf(run)
    if (entry !== run && this.host.has(run.id)) return undefined
    if (entry.place === "running" || entry.place === "finishing") return undefined
    this.lines.awaits(entry)
    if (entry === run) this.leave(entry, now)
    else {
      this.host.add(entry)
      if (entry.told?.limits !== undefined) this.lines.claim(entry, false)
    }
    entry.payload = payload ?? entry.payload
    if (task !== undefined && task !== entry.task) {
      entry.task = task
      entry.line = lineOf(task, entry.keys)
      entry.need = null
    }
    entry.priority = priority ?? entry.priority
    entry.scheduledAt = scheduledAt ?? entry.scheduledAt
    if (scheduledAt !== undefined && entry.state !== "retrying") entry.state = scheduledAt > now ? "scheduled" : "ready"
    entry.orderKey = this.host.orderKeyOf(entry)
    entry.isEdited = true
    // Whatever an owner before has started of it is stale: its worker knows the run as it was.
    const { numbers } = this.host
    entry.lease = wasStarted(entry.lease) ? numbers.next() : numbers.first
    this.host.settle(entry)
    return entry
  }

  forgotten(id: RunId): void {
    for (const departed of this.departed.values()) departed.add(id)
  }

  beginRead(): () => ReadonlySet<RunId> {
    const departed = new Set<RunId>()
    this.departed.set(departed, departed)
    return () => {
      this.departed.delete(departed)
      return departed
    }
  }

  loaded(
    name: string | undefined,
    runs: ReadonlyArray<StoredRun>,
    complete: boolean,
    now: number,
    arrivals: Arriving | undefined
  ): void {
    const line = name === undefined ? undefined : this.lines.get(name)!
    const window = line?.window ?? this.timers
    const departed = this.departed.get(window)!
    this.departed.delete(window)
    const place = line === undefined ? "timer" : "ready"
    const keyOf = (run: StoredRun) => (line === undefined ? run.scheduledAt : run.orderKey)
    const page: Array<Seat<Entry>> = []
    for (const run of runs) {
      if (this.host.has(run.id) || departed.has(run.id)) continue
      if (arrivals?.isArriving(run.id, run.seq) === true) continue
      const entry = entryOf(run)
      if (entry.told?.limits !== undefined) this.lines.claim(entry, false)
      entry.place = place
      entry.inStoredLine = true
      entry.seat = seatOf(entry, keyOf(run), run.seq, entry.payload.length)
      this.host.add(entry)
      if (line !== undefined) this.host.seated(entry)
      page.push(entry.seat)
    }
    const last = runs[runs.length - 1]
    const beyond = window.finishLoad(
      page,
      last === undefined ? undefined : { key: keyOf(last), seq: last.seq },
      complete
    )
    for (const seat of beyond) this.evicted(seat.item)
    if (line !== undefined) this.filled(line, now)
  }

  loadFailed(name: string | undefined, now: number): void {
    const line = name === undefined ? undefined : this.lines.get(name)!
    const window = line?.window ?? this.timers
    this.departed.delete(window)
    for (const seat of window.failLoad()) this.evicted(seat.item)
    if (line !== undefined) this.filled(line, now)
  }

  private filled(line: Line, now: number): void {
    this.lines.place(line, now)
    this.shrunk(line, now)
  }

  /** Runs have left the line: it is filled up, or forgotten. */
  private shrunk(line: Line, now: number, isIdle = line.isKeyed): void {
    if (line.window.needsLoad()) this.load(line)
    else if (line.window.size > 0 || !isIdle || !this.lines.closeIfEmpty(line)) this.lines.place(line, now)
  }

  /**
   * More that are due than the line of ready runs holds would be written to the store as ready, only to be read again. So
   * they stay there for a while; no longer, for those in memory may be of a task that nobody executes.
   */
  private isHeldBack(now: number): boolean {
    const isFull = this.dueCount > this.limits.runsMax / 2
    if (isFull && this.heldBackUntil === Infinity) this.heldBackUntil = now + holdBackMs
    if (isFull && now < this.heldBackUntil) return true
    this.heldBackUntil = Infinity
    return false
  }

  private load(line: Line | undefined): void {
    const window = line?.window ?? this.timers
    this.departed.set(window, new Set())
    this.host.load({ line: line?.name, ...window.beginLoad() })
  }

  private enterLine(entry: Entry, now: number): boolean {
    const line = this.lines.open(entry.line, true)
    if (!this.seat(line.window, entry, "ready", entry.orderKey)) return false
    this.lines.place(line, now)
    return true
  }

  private seat(window: Window<Entry>, entry: Entry, place: "ready" | "timer", key: number): boolean {
    const seat = window.offer(entry, key, entry.seq, entry.payload.length)
    if (seat === undefined) return false
    entry.seat = seat
    entry.place = place
    if (place === "ready") this.host.seated(entry)
    if (!entry.inStoredLine) this.dueCount += 1
    for (const gone of window.evict()) this.evicted(gone.item)
    return true
  }

  /** Out of memory; but a run the store has in another line is written to its own first. */
  private evicted(entry: Entry): void {
    entry.seat = undefined
    if (entry.inStoredLine) return this.host.forget(entry)
    this.dueCount -= 1
    this.host.settle(entry)
  }
}
