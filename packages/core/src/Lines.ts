/**
 * The ready runs of a partition and whose turn it is.
 *
 * They wait in lines (`lineOf`): one per task and set of keys, one per ordering key. Lines whose first run may start are *up*,
 * kept by kind (`Need`; for most that is their task), so that a kind no worker can take now costs one look; within a kind by tenant, and tenants take turns
 * (stride scheduling: who has had least for its weight is next); within a tenant by (orderKey, seq) of their first runs. The
 * other lines wait: at a gate, for the time of their first run, or until the run before has ended.
 *
 * Bounds: `linesMax` lines with keys; `windowsOf` says how many runs of each are in memory.
 */
import { type Entry, needOf, type WorkerPool } from "./Entry.js"
import { GateBook } from "./GateBook.js"
import { Counted, type Gate, Held, Rate } from "./Gates.js"
import { Heap } from "./Heap.js"
import type { QueueRules } from "./QueueSettings.js"
import { isBefore, KindTurns, Line, noGates, Tenant, Turn } from "./Line.js"
import { isSpan, type Lender, nobody, SpanRate } from "./SpanGates.js"
import { gatedStart, plainStart, type Started, type Taken } from "./Started.js"
import { Window, type WindowLimits } from "./Window.js"

/** Lines with keys in one partition, above which `hasRoomFor` refuses runs with yet other keys. */
export const linesMax = 20_000
/** Of one such line in memory: between these, as many as come to the runs of one window in sum. */
const keyedRuns = { min: 4, max: 64 }
/** Forgotten keys are looked for after this many have been met. */
const sweepEvery = 1_024

export interface LinesOptions {
  readonly agingStepMs: number
  readonly window: WindowLimits
  /** `undefined`: nobody owned the partition before. */
  readonly takenOverAt: number | undefined
  readonly rules?: QueueRules | undefined
  /** Of room at limits that span queues. Without one there is none. */
  readonly lender?: Lender | undefined
}

export class Lines {
  private readonly byName = new Map<string, Line>()
  /** Those without keys: as many as there are tasks. */
  readonly plain = new Set<Line>()
  private readonly up = new Map<string, KindTurns>()
  /** Kinds of it that ask for something. */
  private needy = 0
  private readonly tenants = new Map<string, Tenant>()
  readonly gates: GateBook
  private readonly asleep = new Heap<Line>((a, b) => a.wakesAt < b.wakesAt)
  /** Rates at which lines wait. */
  private readonly rates = new Heap<Rate & { opens?: number }>((a, b) => a.opens! < b.opens!)
  private readonly keyed: { runsMax: number; bytesMax: number }
  private keyedCount = 0
  private met = 0
  /** Pass of the tenant that had the last turn: one that comes back starts from here. */
  private virtualTime = 0

  constructor(private readonly options: LinesOptions) {
    this.gates = new GateBook(options.takenOverAt, options.lender ?? nobody, (gate) => {
      if (gate instanceof Rate && gate.at >= 0) this.rates.remove(gate)
      if (isSpan(gate)) gate.lent.close()
    })
    if (options.rules !== undefined) this.gates.apply(options.rules)
    this.keyed = { runsMax: keyedRuns.max, bytesMax: options.window.bytesMax }
  }

  [Symbol.iterator](): Iterator<Line> {
    return this.byName.values()
  }

  get(name: string): Line | undefined {
    return this.byName.get(name)
  }

  /** Whether a run with these keys would not be one line too many. */
  hasRoomFor(name: string): boolean {
    return this.keyedCount < linesMax || this.byName.has(name)
  }

  /** The line of this name. `complete`: if it is new, nothing of it is stored. */
  open(name: string, complete: boolean): Line {
    let line = this.byName.get(name)
    if (line !== undefined) return line
    const isKeyed = /[|>]/.test(name)
    line = new Line(name, isKeyed, new Window<Entry>(isKeyed ? this.keyed : this.options.window, complete))
    this.byName.set(name, line)
    if (isKeyed) this.count(1)
    else this.plain.add(line)
    return line
  }

  /** Nothing of it is left, here or in the store. */
  closeIfEmpty(line: Line): boolean {
    const { away, busy, window } = line
    if (!window.complete || window.size > 0 || window.loading || busy !== undefined || away !== undefined) return false
    this.pull(line)
    this.bind(line, undefined, noGates)
    this.byName.delete(line.name)
    if (line.isKeyed) this.count(-1)
    else this.plain.delete(line)
    return true
  }

  private count(change: number): void {
    this.keyedCount += change
    const share = Math.floor(this.options.window.runsMax / Math.max(1, this.keyedCount))
    this.keyed.runsMax = Math.min(keyedRuns.max, Math.max(keyedRuns.min, share))
    this.keyed.bytesMax = Math.max(65_536, Math.floor(this.options.window.bytesMax / Math.max(1, this.keyedCount)))
  }

  /** The first run of the line may be another one, or something it waits for has changed: puts it where it belongs. */
  place(line: Line, now: number): void {
    const head = line.window.peek()
    const entry = head?.item
    const isMet = entry !== undefined && line.keysText === entry.keys && line.limiters === this.gates.limitersOf(entry)
    // The usual case: it is up and stays so.
    if (isMet && line.turn !== undefined && line.kind === kindOf(entry)) {
      const rank = this.rankOf(line.isOrdered, entry)
      if (line.seq === head!.seq && line.rank === rank) return
      line.rank = rank
      line.seq = head!.seq
      if (!line.isGated && !line.isOrdered) {
        line.turn.lines.update(line)
        this.up.get(line.kind)!.turns.update(line.turn)
        return
      }
    }
    const wasUp = line.turn !== undefined
    const before = { gates: line.gates, kind: line.kind }
    this.pull(line)
    if (entry !== undefined) {
      if (!isMet) this.meet(line, entry)
      line.kind = kindOf(entry)
      line.task = entry.task
      line.need = needOf(entry)
      line.rank = this.rankOf(line.isOrdered, entry)
      line.seq = head!.seq
      this.put(line, entry, now)
    }
    if (wasUp && (line.turn === undefined || line.kind !== before.kind)) this.wakeOthers(before.gates, before.kind, now)
  }

  /** Other settings of the queue: limits hold at once, and lines whose gates are others now move. */
  apply(rules: QueueRules, now: number): void {
    if (this.gates.apply(rules)) {
      for (const line of [...this.byName.values()]) {
        line.keysText = undefined
        if (line.window.peek() !== undefined) this.place(line, now)
      }
    }
    for (const gate of [...this.gates]) if (gate.waiting.size > 0) this.wake(gate, now)
  }

  /** All kinds are looked at again. */
  unblock(): void {
    for (const kind of this.up.values()) {
      kind.isBlocked = false
      kind.isHeld = false
    }
  }

  /** No worker has a place for runs of its kind now. */
  block({ kind }: Line, isHeld: boolean): void {
    const turns = this.up.get(kind)!
    turns.isBlocked = true
    turns.isHeld = isHeld
  }

  /** The line whose first run is next, among kinds that are not blocked. Those without room at limits that span queues ask for it. */
  next(now: number, pool: WorkerPool): Line | undefined {
    for (;;) {
      let best: Turn | undefined
      for (const { isBlocked, turns } of this.up.values()) {
        if (isBlocked) continue
        const turn = turns.peek()!
        if (best === undefined || isBefore(turn, best)) best = turn
      }
      const line = best?.lines.peek()
      if (line === undefined || line.gates === noGates) return line
      // Others may have taken what was there when it came up.
      const closed = this.closedGate(line, now) ?? line.gates.find((gate) => isSpan(gate) && gate.room() <= 0)
      if (closed === undefined) return line
      // Room is borrowed for a start that could be made, or others would miss it.
      if (isSpan(closed) && pool.hasRoom?.(line.task, line.isPrompt, line.need) === false) {
        this.block(line, false)
        continue
      }
      this.pull(line)
      this.park(line, closed, now)
      this.wakeOthers(line.gates, line.kind, now)
    }
  }

  /** The first run of the line starts and has left its window. */
  started(line: Line, entry: Entry, now: number, isExact: boolean): Started {
    // One alone has nobody to take turns with.
    if (this.tenants.size > 1) this.pass(line.tenant!)
    if (line.isOrdered) line.busy = entry
    const mustWait = line.isOrdered || line.need?.isBackfill === true
    // What was lent for starts is spent whatever becomes of this owner: no heir has to know of them.
    if (line.gates === noGates || (!line.isGated && !mustWait && !isExact)) {
      for (const gate of line.gates) if (gate instanceof SpanRate) gate.take()
      this.place(line, now)
      return mustWait ? gatedStart : plainStart
    }
    const permits: Array<Held> = []
    const rates: Array<Taken> = []
    for (const gate of line.gates) {
      if (gate instanceof Held) permits.push(gate)
      else if (gate instanceof Counted) rates.push({ rate: gate, cost: gate.take(now) })
    }
    for (const permit of permits) permit.hold(false)
    // It has used up its room: whether it is up again is looked at anew.
    this.pull(line)
    this.place(line, now)
    return { permits, rates, isGated: true }
  }

  /** It has had a turn. */
  private pass(tenant: Tenant): void {
    this.virtualTime = tenant.pass
    tenant.pass += 1 / tenant.weight
    for (const [kind, turn] of tenant.turns) this.up.get(kind)!.turns.update(turn)
  }

  /** The worker is told of the start now; or it will not be. */
  settled(taken: ReadonlyArray<Taken>, isMade: boolean, now: number): void {
    for (const { cost, rate } of taken) {
      if (isMade) rate.made(cost, now)
      else rate.giveBack(cost)
      if (rate.waiting.size > 0) this.wake(rate, now)
    }
  }

  /** Whether a start took room that was for one before now. */
  isLate(taken: ReadonlyArray<Taken>): boolean {
    for (const { cost, rate } of taken) if (rate.isLate(cost)) return true
    return false
  }

  /** An attempt that is out already. */
  adopt(entry: Entry, now: number): ReadonlyArray<Held> {
    const line = this.open(entry.line, true)
    if (line.isOrdered) line.busy = entry
    const permits = this.gates.of(entry, now).filter((gate) => gate instanceof Held)
    for (const permit of permits) permit.hold(true)
    return permits
  }

  /** The attempt is over. */
  ended(permits: ReadonlyArray<Held>, now: number): void {
    for (const permit of permits) {
      permit.free()
      this.wake(permit, now)
      this.gates.forgetIfIdle(permit, now)
    }
  }

  /**
   * A run that would rather not wait at a full key: those it puts an end to, itself among them if it is the one to go.
   * From now on it counts as one of the key's until `unclaim`.
   */
  claim(entry: Entry, isNew: boolean): ReadonlyArray<Entry> {
    const ended: Array<Entry> = []
    for (const key of entry.told?.limits ?? []) {
      if (key.onFull === undefined || key.onFull === "wait") continue
      const permit = this.gates.permit(key, entry.seq)
      const isFull = permit.claims.size >= permit.limit
      if (isNew && isFull && key.onFull === "cancelNewest") return [entry]
      if (isNew && isFull) {
        for (const oldest of permit.claims) {
          if (permit.claims.size - ended.length < permit.limit) break
          ended.push(oldest)
        }
      }
      permit.claims.add(entry)
      entry.claims = entry.claims === undefined ? [permit] : [...entry.claims, permit]
    }
    return ended
  }

  unclaim(entry: Entry, now: number): void {
    for (const permit of entry.claims ?? []) {
      permit.claims.delete(entry)
      this.gates.forgetIfIdle(permit, now)
    }
    entry.claims = undefined
  }

  /** It leaves its line to come back: in an ordered one none that comes up meanwhile may start before that. */
  awaits(entry: Entry): void {
    const line = this.byName.get(entry.line)
    if (line?.isOrdered === true) (line.away ??= new Set()).add(entry)
  }

  /** The run that an ordered line has waited for is no more, or back in line. */
  freed(entry: Entry, now: number): void {
    const line = this.byName.get(entry.line)
    if (line === undefined) return
    const wasAway = line.away?.delete(entry) === true
    if (line.away?.size === 0) line.away = undefined
    if (line.busy === entry) line.busy = undefined
    else if (!wasAway) return
    if (!this.closeIfEmpty(line)) this.place(line, now)
  }

  /** Lines whose time has come. */
  tick(now: number): void {
    for (let line = this.asleep.peek(); line !== undefined && line.wakesAt <= now; line = this.asleep.peek()) {
      this.place(line, now)
    }
    for (let rate = this.rates.peek(); rate !== undefined && rate.opens! <= now; rate = this.rates.peek()) {
      this.rates.remove(rate)
      this.wake(rate, now)
    }
    for (const gate of this.gates.takeFilled()) if (gate.waiting.size > 0) this.wake(gate, now)
  }

  nextTick(): number {
    return Math.min(this.asleep.peek()?.wakesAt ?? Infinity, this.rates.peek()?.opens ?? Infinity)
  }

  /** Most slots that one of the runs asks for which may start at a worker with these tasks, and so many slots; 0: none. */
  wants(tasks: ReadonlySet<string>, slots: number): number {
    let most = 0
    for (const kind of this.up.values()) {
      if (!tasks.has(kind.task)) continue
      if (this.needy === 0) return 1
      const asked = kind.need?.slots ?? 1
      if (asked > most && asked <= slots && !kind.isHeld) most = asked
    }
    return most
  }

  /** Some of what may start asks for more than a slot of its own. */
  get hasNeeds(): boolean {
    return this.needy > 0
  }

  /** Runs of backfills wait for others of them to end. */
  get holdsBackfills(): boolean {
    if (this.needy > 0) { for (const kind of this.up.values()) if (kind.isHeld) return true }
    return false
  }

  private put(line: Line, entry: Entry, now: number): void {
    if (line.busy !== undefined || line.away !== undefined) return
    if (line.isOrdered && entry.state !== "ready" && entry.scheduledAt > now) {
      line.wakesAt = entry.scheduledAt
      line.isAsleep = true
      return this.asleep.push(line)
    }
    const closed = line.gates === noGates ? undefined : this.closedGate(line, now)
    if (closed !== undefined) return this.park(line, closed, now)
    this.raise(line)
  }

  private raise(line: Line): void {
    const { kind } = line
    const tenant = line.tenant!
    let turns = this.up.get(kind)
    if (turns === undefined) {
      turns = new KindTurns(line.task, line.need)
      this.up.set(kind, turns)
      if (line.need !== undefined) this.needy += 1
    }
    let turn = tenant.turns.get(kind)
    line.turn = turn
    if (turn !== undefined) {
      turn.lines.push(line)
      turns.turns.update(turn)
    } else {
      if (tenant.turns.size === 0) tenant.pass = Math.max(tenant.pass, this.virtualTime)
      turn = new Turn(tenant)
      line.turn = turn
      turn.lines.push(line)
      tenant.turns.set(kind, turn)
      turns.turns.push(turn)
    }
  }

  /** Out of wherever it waits, without a word to others. */
  private pull(line: Line): void {
    const { kind, turn } = line
    if (turn !== undefined) {
      line.turn = undefined
      const turns = this.up.get(kind)!
      turn.lines.remove(line)
      if (turn.lines.size > 0) turns.turns.update(turn)
      else {
        turns.turns.remove(turn)
        turn.tenant.turns.delete(kind)
        if (turns.turns.size === 0) {
          this.up.delete(kind)
          if (turns.need !== undefined) this.needy -= 1
        }
      }
    } else if (line.parkedAt !== undefined) line.parkedAt.unpark(line)
    else if (line.isAsleep) {
      this.asleep.remove(line)
      line.isAsleep = false
    }
  }

  private park(line: Line, gate: Gate, now: number): void {
    line.parkedPass = line.tenant!.pass
    gate.park(line)
    if (gate instanceof Rate) this.setAlarm(gate, now)
    else if (isSpan(gate)) gate.lent.want()
  }

  private setAlarm(rate: Rate & { opens?: number }, now: number): void {
    rate.opens = rate.opensAt(now)
    if (rate.at >= 0) this.rates.update(rate)
    else this.rates.push(rate)
  }

  /** Of this partition. What spans queues is asked for when there is a slot (`next`). */
  private closedGate(line: Line, now: number): Gate | undefined {
    for (const gate of line.gates) if (!isSpan(gate) && gate.room(now) <= 0) return gate
    return undefined
  }

  /** Lets as many lines of each kind come up as there is room for. */
  private wake(gate: Gate, now: number): void {
    for (const [kind, heap] of gate.waiting) {
      // What is up already may be all that there is room for; then these are looked at once more, and wait again.
      for (let room = gate.room(now); room > 0 && heap.size > 0; room--) {
        const line = heap.peek()!
        gate.unpark(line)
        const closed = this.closedGate(line, now)
        if (closed === undefined) this.raise(line)
        else {
          this.park(line, closed, now)
          room += 1
        }
      }
      if (heap.size === 0) gate.waiting.delete(kind)
    }
    if (gate.waiting.size === 0) return
    if (gate instanceof Rate) this.setAlarm(gate, now)
    else if (isSpan(gate)) gate.lent.want()
  }

  private wakeOthers(gates: ReadonlyArray<Gate>, kind: string, now: number): void {
    for (const gate of gates) if (gate.waiting.has(kind) && gate.room(now) > 0) this.wake(gate, now)
  }

  /** Finds the tenant and gates of the line's first run. */
  private meet(line: Line, entry: Entry): void {
    line.keysText = entry.keys
    line.limiters = this.gates.limitersOf(entry)
    const keys = entry.told
    const tenant = this.tenantOf(keys?.tenant ?? "", keys?.weight ?? 1)
    const isPlain = keys === undefined && line.limiters === undefined
    this.bind(line, tenant, isPlain ? noGates : this.gates.of(entry, entry.createdAt))
    line.isGated = line.gates.some((gate) => !(gate instanceof SpanRate))
    line.isPrompt = line.limiters?.some(({ exactness, kind }) => kind === "rate" && exactness === undefined) ?? false
  }

  private bind(line: Line, tenant: Tenant | undefined, gates: ReadonlyArray<Gate>): void {
    if (tenant !== undefined) tenant.lines += 1
    if (line.tenant !== undefined) line.tenant.lines -= 1
    line.tenant = tenant
    for (const gate of gates) gate.lines += 1
    const before = line.gates
    line.gates = gates.length === 0 ? noGates : gates
    for (const gate of before) {
      gate.lines -= 1
      this.gates.forgetIfIdle(gate, -Infinity)
    }
  }

  private tenantOf(key: string, weight: number): Tenant {
    let tenant = this.tenants.get(key)
    if (tenant === undefined) {
      this.sweep()
      tenant = new Tenant(key)
      this.tenants.set(key, tenant)
    }
    tenant.weight = weight
    return tenant
  }

  /** Rates are idle some time after their last start, tenants when the others have caught up: nobody tells. */
  private sweep(): void {
    this.met += 1
    if (this.met % sweepEvery !== 0) return
    for (const [key, tenant] of this.tenants) {
      if (tenant.lines === 0 && tenant.pass <= this.virtualTime) this.tenants.delete(key)
    }
  }

  /** An ordered line is kept by arrival; beside other lines its first run counts like any. */
  rankOf(isOrdered: boolean, entry: Entry): number {
    return isOrdered ? entry.scheduledAt + entry.priority * this.options.agingStepMs : entry.orderKey
  }
}

const kindOf = (entry: Entry): string => needOf(entry)?.kind ?? entry.task
