/**
 * Why a run is where it is, from the memory of its owner. A look at most of what is in memory: for people who ask, not for
 * the way of each run.
 */
import { type Entry, entryOf, needOf, slotsOf } from "./Entry.js"
import { type HoldsUp, namedRunsMax, type Reason } from "./Explanation.js"
import { hasKey, spanId } from "./GateBook.js"
import { type Gate, Permit, Rate } from "./Gates.js"
import type { StoredRun } from "./Journal.js"
import type { Line } from "./Line.js"
import { halfOf } from "./Need.js"
import type { QueueMachine } from "./QueueMachine.js"
import type { RunFailure } from "./Run.js"
import type { RunId } from "./RunId.js"
import { backfillLimit, isOrdered } from "./RunKeys.js"
import { isSpan, type SpanGate, SpanPermit } from "./SpanGates.js"
import type { Window } from "./Window.js"

/** A run that is not in memory, and how many of its line come before it, counted in the store. */
export interface Beyond {
  readonly run: StoredRun
  readonly before: { readonly runs: number; readonly isAtLeast: boolean }
}

export interface Explained {
  /** The first is the one that counts. */
  readonly reasons: readonly [Reason, ...ReadonlyArray<Reason>]
  readonly holdsUp: HoldsUp | undefined
}

/** What the owner's node knows of workers. */
export interface Workers {
  /** Slots of the largest one with a handler for the task; `undefined`: there is none. */
  readonly slotsFor: (task: string) => number | undefined
  /** Of those: the half that is for backfills, and how many slots their runs take. */
  readonly backfillsOf: (task: string) => { readonly most: number; readonly taken: number }
}

/** `undefined`: it is not in memory; ask with what the store has of it. */
export const explain = (
  machine: QueueMachine,
  of: RunId | Beyond,
  now: number,
  workers: Workers
): Explained | undefined => {
  const entry = typeof of === "string" ? machine.find(of) : entryOf(of.run)
  if (entry === undefined) return undefined
  const line = machine["lines"].get(entry.line)
  const holdsUp = line === undefined ? undefined : heldUpBy(entry, line)
  switch (entry.place) {
    case "running":
      return { reasons: [running(entry)], holdsUp }
    case "settling":
    case "finishing":
      return { reasons: [{ _tag: "BeingWritten" }], holdsUp }
    default:
      return {
        reasons: waiting(machine, entry, line, typeof of === "string" ? undefined : of.before, now, workers),
        holdsUp
      }
  }
}

const running = (entry: Entry): Reason => ({
  _tag: "Running",
  worker: entry.worker ?? "",
  since: entry.startedAt ?? 0,
  attempt: entry.attempt,
  isCancelRequested: entry.cancelRequested
})

const waiting = (
  machine: QueueMachine,
  entry: Entry,
  line: Line | undefined,
  beyond: Beyond["before"] | undefined,
  now: number,
  workers: Workers
): readonly [Reason, ...ReadonlyArray<Reason>] => {
  const reasons: Array<Reason> = []
  const { paused, pausedKeys } = machine["control"].rules
  if (entry.state !== "ready" && entry.scheduledAt > now) reasons.push(forTime(entry))
  if (paused !== undefined) reasons.push({ _tag: "Paused", by: paused.by, why: paused.why, since: paused.at })
  for (const { of, pause } of pausedKeys) {
    if (hasKey(entry, of)) {
      reasons.push({ _tag: "Paused", by: pause.by, why: pause.why, since: pause.at, key: of })
    }
  }
  const most = workers.slotsFor(entry.task)
  const slots = slotsOf(entry)
  if (most === undefined) reasons.push({ _tag: "NoWorker", task: entry.task })
  else if (most < slots) reasons.push({ _tag: "NoWorker", task: entry.task, slots, most })
  const head = line === undefined ? undefined : headOf(line, entry)
  if (head !== undefined) reasons.push(order(entry, head))
  reasons.push(...limits(machine, entry, now), ...half(machine, entry, workers))
  const [first, ...rest] = reasons
  if (first?._tag === "WaitingForTime" || first?._tag === "Backoff") return [first, ...rest]
  const behind = behindOf(machine, entry, line, beyond, now)
  return first === undefined ? [behind] : [first, ...rest, behind]
}

const forTime = (entry: Entry): Reason =>
  entry.state === "retrying"
    ? { _tag: "Backoff", until: entry.scheduledAt, lastError: failureOf(entry) }
    : { _tag: "WaitingForTime", until: entry.scheduledAt }

const failureOf = ({ failure }: Entry): RunFailure | null => failure === null ? null : JSON.parse(failure) as RunFailure

/** The run of an ordered line that this one waits for. */
const headOf = (line: Line, entry: Entry): Entry | undefined => {
  if (!line.isOrdered) return undefined
  const head = line.busy ?? line.window.peek()?.item
  return head === undefined || head.id === entry.id ? undefined : head
}

const order = (entry: Entry, head: Entry): Reason => ({
  _tag: "WaitsForOrder",
  key: entry.line.slice(1),
  behind: head.id,
  state: head.end?.state ?? head.state,
  until: head.place === "running" || head.state === "ready" ? null : head.scheduledAt,
  lastError: failureOf(head)
})

const limits = (machine: QueueMachine, entry: Entry, now: number): ReadonlyArray<Reason> => {
  const reasons: Array<Reason> = []
  const control = machine["control"]
  const { concurrency } = control.rules
  const count = machine.runningCount
  if (concurrency !== undefined && count >= concurrency) {
    reasons.push({
      _tag: "Blocked",
      limit: null,
      most: concurrency,
      running: count,
      holders: holders(machine, () => true)
    })
  }
  const opensAt = control.rateOpensAt(now)
  if (opensAt !== undefined) reasons.push({ _tag: "RateLimited", limit: null, until: opensAt })
  for (const { limit, gate } of gatesOf(machine, entry)) {
    if (gate.room(now) > 0) continue
    if (isSpan(gate)) {
      // Without anybody who waits, room is merely not at hand.
      if (gate.waiting.size > 0) reasons.push(spanning(machine, gate))
    } else if (gate instanceof Permit) {
      const holds = (other: Entry) => other.permits.includes(gate)
      const { limit: most, running: taken } = gate
      reasons.push({ _tag: "Blocked", limit, most, running: taken, holders: holders(machine, holds) })
    } else if (gate instanceof Rate) {
      const at = gate.opensAt(now)
      reasons.push({ _tag: "RateLimited", limit, until: at === Infinity ? null : at })
    }
  }
  return reasons
}

const spanning = (machine: QueueMachine, gate: SpanGate): Reason => {
  const limit = { name: gate.terms.name, key: "*" }
  const spans = gate.lent.obstacle() === "unavailable" ? "unavailable" : "used"
  if (!(gate instanceof SpanPermit)) return { _tag: "RateLimited", limit, until: null, spans }
  return {
    _tag: "Blocked",
    limit,
    most: gate.terms.limit,
    running: gate.running,
    holders: holders(machine, ({ permits }) => permits.includes(gate)),
    spans
  }
}

/** Of a run of a backfill: others of those have half of what there is. */
const half = (machine: QueueMachine, entry: Entry, workers: Workers): ReadonlyArray<Reason> => {
  if (needOf(entry)?.isBackfill !== true) return []
  const { concurrency = Infinity } = machine["control"].rules
  const running = machine.leases.backfills
  const { most, taken } = workers.backfillsOf(entry.task)
  const isFull = running >= halfOf(concurrency)
  if (!isFull && (taken === 0 || taken + slotsOf(entry) <= most)) return []
  const { key, name } = backfillLimit
  const holdersOf = holders(machine, (other) => needOf(other)?.isBackfill === true)
  return [{
    _tag: "Blocked",
    limit: { name, key },
    ...isFull ? { most: halfOf(concurrency), running } : { most, running: taken },
    holders: holdersOf
  }]
}

/** Those that exist: one that does not is open. */
const gatesOf = (machine: QueueMachine, entry: Entry) => {
  const { told } = entry
  const book = machine["lines"]["gates"]
  const found: Array<{ readonly limit: { readonly name: string; readonly key: string }; readonly gate: Gate }> = []
  const add = ({ key, name }: { readonly name: string; readonly key: string }, id: string) => {
    const gate = book.find(id)
    if (gate !== undefined) found.push({ limit: { name, key }, gate })
  }
  for (const each of told?.limits ?? []) add(each, `${each.name}|${each.key}`)
  for (const each of told?.rates ?? []) add(each, `${each.name}|${each.key}|rate`)
  for (const terms of book.limitersOf(entry) ?? []) add({ name: terms.name, key: "*" }, spanId(terms, entry))
  return found
}

const holders = (machine: QueueMachine, holds: (entry: Entry) => boolean): ReadonlyArray<RunId> => {
  const found: Array<RunId> = []
  for (const entry of machine["entries"].values()) {
    if (entry.place !== "running" || !holds(entry)) continue
    if (found.push(entry.id) === namedRunsMax) break
  }
  return found
}

const behindOf = (
  machine: QueueMachine,
  entry: Entry,
  own: Line | undefined,
  beyond: Beyond["before"] | undefined,
  now: number
): Reason => {
  const lines = machine["lines"]
  const rank = lines.rankOf(isOrdered(entry.line), entry)
  let runs = beyond?.runs ?? 0
  let isAtLeast = beyond?.isAtLeast ?? false
  for (const line of lines) {
    if (line === own && beyond !== undefined) continue
    // Those that wait for something else do not come first; of its own line all before it do.
    if (line !== own && line.turn === undefined) continue
    const place = { key: line === own ? entry.orderKey : rank, seq: entry.seq }
    const count = line.isOrdered && line !== own ? headBefore(line, place) : countBefore(line, place)
    runs += count.runs
    isAtLeast ||= count.isAtLeast
  }
  return { _tag: "Behind", runs, isAtLeast, eta: machine["control"].pace.eta(runs + 1, now) }
}

interface Place {
  readonly key: number
  readonly seq: number
}

/** Of an ordered line only the first counts: the next one waits for its end. */
const headBefore = ({ rank, seq }: Line, place: Place): Beyond["before"] => ({
  runs: rank < place.key || (rank === place.key && seq < place.seq) ? 1 : 0,
  isAtLeast: false
})

const countBefore = ({ window }: Line, place: Place): Beyond["before"] => {
  let runs = 0
  for (const { key, seq } of seatsIn(window)) if (key < place.key || (key === place.key && seq < place.seq)) runs += 1
  return { runs, isAtLeast: !window.complete && window["edgeKey"] < place.key }
}

function* seatsIn(window: Window<Entry>) {
  for (const seat of window["heap"]) if (seat.taken) yield seat
}

const heldUpBy = (entry: Entry, line: Line): HoldsUp | undefined => {
  if (!line.isOrdered || (line.busy ?? line.window.peek()?.item)?.id !== entry.id) return undefined
  const behind = [...seatsIn(line.window)].filter(({ item }) => item.id !== entry.id).sort((a, b) => a.seq - b.seq)
  if (behind.length === 0 && line.window.complete) return undefined
  return {
    key: line.name.slice(1),
    runs: behind.length,
    isAtLeast: !line.window.complete,
    first: behind.slice(0, namedRunsMax).map(({ item }) => item.id)
  }
}
