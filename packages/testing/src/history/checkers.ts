/**
 * What must hold in every history, however many processes were killed, frozen or cut off in it. Each checker looks for the
 * breach of one promise; each has a seeded bug that it must notice (`Mutation`).
 *
 * All read the history once, front to back: linear in its length.
 */
import { isFinal, moves, type RunState } from "@orrery/core/RunState"
import type { Asked, Committed, HistoryEvent, Started, Ticked } from "./HistoryEvent.js"

export interface Violation {
  readonly checker: CheckerName
  readonly run?: string
  readonly what: string
}

export interface CheckOptions {
  /** How far `Started.databaseTime` may be off, ms. Default 0. */
  readonly toleranceMs?: number
}

export const checkerNames = [
  "lost",
  "doubleAccepted",
  "epochBackwards",
  "illegalMove",
  "early",
  "overLimit",
  "order",
  "liveness",
  "resources",
  "readYourWrite",
  "ticks",
  "checkpoints"
] as const
export type CheckerName = typeof checkerNames[number]

export interface Checker {
  readonly name: CheckerName
  /** The promise, for people. */
  readonly promise: string
  readonly check: (history: ReadonlyArray<HistoryEvent>, options: CheckOptions) => ReadonlyArray<Violation>
}

type Found = Omit<Violation, "checker">
type Look = (history: ReadonlyArray<HistoryEvent>, found: (violation: Found) => void, options: CheckOptions) => void

const checker = (name: CheckerName, promise: string, look: Look): Checker => ({
  name,
  promise,
  check: (history, options) => {
    const violations: Array<Violation> = []
    look(history, (violation) => violations.push({ checker: name, ...violation }), options)
    return violations
  }
})

/** An acknowledged run is there in the end; in which state, is a matter of `liveness`. */
const lost: Look = (history, found) => {
  const stored = new Set<string>()
  for (const event of history) if (event._tag === "final" && event.rows > 0) stored.add(event.run)
  for (const event of history) {
    if (event._tag === "acknowledged" && !stored.has(event.run)) {
      found({ run: event.run, what: `acknowledged to ${event.by}, and not in the store` })
    }
  }
}

/** The ends of an attempt that its worker told, in words of the run. What a crash or a cancellation ends was not accepted. */
const outcomes: ReadonlySet<RunState> = new Set(["succeeded", "failed", "retrying"])

/** A commit that was sent again because its answer was lost is the same outcome, not a second one. */
const doubleAccepted: Look = (history, found) => {
  const accepted = new Map<string, Committed>()
  const ended = new Map<string, RunState>()
  /** By run: when each lease was first seen at work. */
  const begun = new Map<string, Array<Started>>()
  for (const event of history) {
    if (event._tag === "final" && event.rows > 1) found({ run: event.run, what: `${event.rows} rows in the store` })
    if (event._tag === "started") {
      const list = begun.get(event.run)
      if (list === undefined) begun.set(event.run, [event])
      else list.push(event)
    }
    if (event._tag === "accepted") {
      const later = begun.get(event.run)?.find(({ at, lease }) => lease > event.lease && at < event.askedAt)
      if (later !== undefined) {
        const what = `the outcome of lease ${event.lease} was accepted though lease ${later.lease} had begun`
        found({ run: event.run, what })
      }
    }
    if (event._tag !== "committed") continue
    const final = ended.get(event.run)
    if (final !== undefined && isFinal(event.to)) {
      found({ run: event.run, what: `ended as ${final}, and again as ${event.to} under lease ${event.lease}` })
    }
    if (isFinal(event.to)) ended.set(event.run, event.to)
    if (!outcomes.has(event.to)) continue
    const key = `${event.run} ${event.attempt}`
    const before = accepted.get(key)
    if (before !== undefined && (before.lease !== event.lease || before.to !== event.to)) {
      const of = (one: Committed) => `${one.to} under lease ${one.lease}`
      found({ run: event.run, what: `attempt ${event.attempt}: ${of(before)}, then ${of(event)}` })
    }
    accepted.set(key, event)
  }
}

/** Of a partition the epoch, and of a run the lease, never fall from one commit to the next. */
const epochBackwards: Look = (history, found) => {
  const epochs = new Map<number, number>()
  const leases = new Map<string, number>()
  for (const event of history) {
    if (event._tag !== "committed") continue
    const epoch = epochs.get(event.partition) ?? 0
    if (event.epoch < epoch) {
      found({ run: event.run, what: `partition ${event.partition}: written under epoch ${event.epoch} after ${epoch}` })
    }
    epochs.set(event.partition, Math.max(epoch, event.epoch))
    const lease = leases.get(event.run) ?? 0
    if (event.lease < lease) found({ run: event.run, what: `lease ${event.lease} after ${lease}` })
    leases.set(event.run, Math.max(lease, event.lease))
  }
}

/** By state: all that can follow, in one write of several moves. */
const reachable: ReadonlyMap<RunState, ReadonlySet<RunState>> = new Map(
  (Object.keys(moves) as Array<RunState>).map((from) => {
    const seen = new Set<RunState>()
    const visit = (state: RunState): void => {
      for (const next of moves[state]) {
        if (seen.has(next)) continue
        seen.add(next)
        visit(next)
      }
    }
    visit(from)
    return [from, seen] as const
  })
)
const first: ReadonlySet<RunState> = new Set(["blocked", "scheduled", "ready"])

/** Changes of a run that wait together are one write, so a move may leave out states in between. */
const illegalMove: Look = (history, found) => {
  const states = new Map<string, RunState>()
  for (const event of history) {
    if (event._tag !== "committed") continue
    const { from, run, to } = event
    const known = states.get(run)
    if (known !== undefined && from !== known) found({ run, what: `was ${known}, and moved from ${from} to ${to}` })
    const isLegal = from === undefined
      ? first.has(to)
      : (from === to && !isFinal(to)) || reachable.get(from)!.has(to)
    if (!isLegal) found({ run, what: `moved from ${from ?? "nothing"} to ${to}` })
    states.set(run, to)
  }
}

/** Neither a run before its time, nor its next attempt before the end of the pause. */
const early: Look = (history, found, { toleranceMs = 0 }) => {
  const dues = new Map<string, { readonly at: number; readonly lease: number }>()
  for (const event of history) {
    if (event._tag === "asked") dues.set(event.run, { at: event.dueAt, lease: 0 })
    else if (event._tag === "committed" && event.scheduledAt !== undefined) {
      dues.set(event.run, { at: event.scheduledAt, lease: event.lease })
    } else if (event._tag === "started") {
      const due = dues.get(event.run)
      // A zombie of an earlier attempt may begin at any time: its outcome will not count.
      const before = due === undefined || event.lease <= due.lease ? 0 : due.at - event.databaseTime
      if (before > toleranceMs) {
        found({ run: event.run, what: `attempt ${event.attempt} began ${before.toFixed(1)} ms before its time` })
      }
    }
  }
}

/**
 * A worker runs no more handlers than it has slots, and no more runs of a key are under way than its limit says. An attempt is until it
 * ends, or its run is stored as anything but running: what a frozen worker still holds by then is nobody's.
 */
const overLimit: Look = (history, found) => {
  const limits = new Map<string, NonNullable<Asked["limits"]>>()
  const running = new Map<string, Set<string>>()
  const over = (run: string): void => {
    for (const { key } of limits.get(run) ?? []) running.get(key)?.delete(run)
  }
  for (const event of history) {
    if (event._tag === "asked" && event.limits !== undefined) limits.set(event.run, event.limits)
    else if (event._tag === "ended" || (event._tag === "committed" && event.to !== "running")) over(event.run)
    else if (event._tag === "started") {
      for (const { key, limit } of limits.get(event.run) ?? []) {
        const those = running.get(key) ?? new Set()
        running.set(key, those.add(event.run))
        if (those.size > limit) {
          found({ run: event.run, what: `${those.size} of ${key} at once, the limit is ${limit}` })
        }
      }
    }
    if (event._tag === "started" && event.running > event.slots) {
      found({
        run: event.run,
        what: `${event.running} handlers at once in ${event.by}, which has ${event.slots} slots`
      })
    }
  }
}

/** Runs of one key: none begins before all that were acknowledged before it was asked for are final. */
const order: Look = (history, found) => {
  const keys = new Map<string, string>()
  const waiting = new Map<string, Set<string>>()
  const ahead = new Map<string, ReadonlyArray<string>>()
  const ended = new Set<string>()
  for (const event of history) {
    if (event._tag === "asked" && event.orderingKey !== undefined && !keys.has(event.run)) {
      keys.set(event.run, event.orderingKey)
      ahead.set(event.run, [...waiting.get(event.orderingKey) ?? []])
    }
    const key = "run" in event && event.run !== null ? keys.get(event.run) : undefined
    if (key === undefined) continue
    // The acknowledgement may be late: sent again, after the first was lost.
    if (event._tag === "acknowledged" && !ended.has(event.run)) {
      waiting.set(key, (waiting.get(key) ?? new Set()).add(event.run))
    } else if (event._tag === "committed" && isFinal(event.to)) {
      ended.add(event.run)
      waiting.get(key)?.delete(event.run)
    }
    if (event._tag === "started") {
      const first = ahead.get(event.run)?.find((one) => waiting.get(key)?.has(one))
      if (first !== undefined) found({ run: event.run, what: `began before ${first} of the same key was final` })
    }
  }
}

/** When nothing has been done to the system for long enough, every run that is there has ended. */
const liveness: Look = (history, found) => {
  for (const event of history) {
    if (event._tag === "final" && event.rows > 0 && !isFinal(event.state)) {
      found({ run: event.run, what: `still ${event.state}` })
    }
  }
}

const resources: Look = (history, found) => {
  for (const event of history) {
    if (event._tag === "measured" && event.value > event.limit) {
      found({ what: `${event.what} of ${event.by} was ${event.value}, the limit is ${event.limit}` })
    }
  }
}

const readYourWrite: Look = (history, found) => {
  const acknowledgedAt = new Map<string, number>()
  for (const event of history) {
    if (event._tag === "acknowledged" && !acknowledgedAt.has(event.run)) acknowledgedAt.set(event.run, event.at)
    else if (event._tag === "read" && !event.found && (acknowledgedAt.get(event.run) ?? Infinity) < event.askedAt) {
      found({ run: event.run, what: `${event.by} did not see it after it was acknowledged` })
    }
  }
}

/** Each target instant is in one record and no other; one that says "enqueued" has a run of its own, and there are no more runs. */
const ticks: Look = (history, found) => {
  const stored = new Set<string>()
  for (const event of history) if (event._tag === "final" && event.rows > 0) stored.add(event.run)
  for (const event of history) {
    if (event._tag !== "targets") continue
    const { nominals, runs, schedule } = event
    const records = history.filter((each) => each._tag === "ticked" && each.schedule === schedule) as Array<Ticked>
    const covered = new Map<number, number>(nominals.map((nominal) => [nominal, 0]))
    const named = new Set<string>()
    for (const { count, first, last, outcome, run } of records) {
      const within = nominals.filter((nominal) => nominal >= first && nominal <= last)
      if (within.length !== count) {
        found({ what: `${schedule}: a record of ${count} from ${first} to ${last} has ${within.length} targets` })
      }
      for (const nominal of within) covered.set(nominal, covered.get(nominal)! + 1)
      if (outcome !== "enqueued") continue
      if (run === null || !stored.has(run)) found({ what: `${schedule}: the tick of ${first} has no run in the store` })
      else if (named.has(run)) found({ run, what: `${schedule}: is the run of two ticks` })
      named.add(run ?? "")
    }
    for (const [nominal, times] of covered) {
      if (times !== 1) found({ what: `${schedule}: ${nominal} is in ${times} records` })
    }
    for (const each of runs) if (!named.has(each)) found({ run: each, what: `${schedule}: is the run of no tick` })
  }
}

/**
 * An attempt whose outcome counts has begun with the last checkpoint that was answered for before it asked, or with one that was asked
 * for since. What an attempt wants kept when another has begun is neither kept nor answered for.
 */
const checkpoints: Look = (history, found) => {
  interface Save {
    readonly lease: number
    readonly value: string
    /** The run had a later attempt when it was asked for. */
    readonly isLate: boolean
    answeredAt: number
  }
  const saves = new Map<string, Array<Save>>()
  const latest = new Map<string, number>()
  const counted = new Set<string>()
  const keyOf = (event: { readonly run: string; readonly lease: number }) => `${event.run} ${event.lease}`
  for (const event of history) if (event._tag === "accepted") counted.add(keyOf(event))
  for (const event of history) {
    if (event._tag === "started") latest.set(event.run, Math.max(event.lease, latest.get(event.run) ?? 0))
    else if (event._tag === "saving") {
      const list = saves.get(event.run) ?? []
      const isLate = event.lease < latest.get(event.run)!
      list.push({ lease: event.lease, value: event.value, isLate, answeredAt: Infinity })
      saves.set(event.run, list)
    } else if (event._tag === "saved") {
      const save = saves.get(event.run)!.findLast(({ lease, value }) => lease === event.lease && value === event.value)!
      save.answeredAt = Math.min(save.answeredAt, event.at)
      if (save.isLate) found({ run: event.run, what: `lease ${event.lease} saved a checkpoint after it was replaced` })
    } else if (event._tag === "loaded" && counted.has(keyOf(event))) {
      const list = (saves.get(event.run) ?? []).filter(({ isLate, lease }) => !isLate && lease < event.lease)
      const last = list.findLastIndex(({ answeredAt }) => answeredAt < event.askedAt)
      const isKnown = list.slice(Math.max(0, last)).some(({ value }) => value === event.value)
      if (isKnown || (last < 0 && event.value === null)) continue
      const kept = last < 0 ? "none" : list[last]!.value
      found({ run: event.run, what: `attempt ${event.attempt} began with checkpoint ${event.value}, kept was ${kept}` })
    }
  }
}

export const checkers: ReadonlyArray<Checker> = [
  checker("lost", "no acknowledged run is lost", lost),
  checker("doubleAccepted", "at most one accepted outcome per attempt, one end per run", doubleAccepted),
  checker("epochBackwards", "epochs and leases never go backwards at commit", epochBackwards),
  checker("illegalMove", "only the moves of the table of states", illegalMove),
  checker("early", "never early", early),
  checker("overLimit", "limits are never exceeded", overLimit),
  checker("order", "runs of one key in their order", order),
  checker("liveness", "everything ends once nothing is done to the system any more", liveness),
  checker("resources", "what is bounded stays within its bound", resources),
  checker("readYourWrite", "what was acknowledged is seen by whoever asks afterwards", readYourWrite),
  checker("ticks", "each instant of a schedule is run once, skipped, or recorded as missed", ticks),
  checker("checkpoints", "an attempt goes on from the last checkpoint that was answered for", checkpoints)
]

export const checkAll = (
  history: ReadonlyArray<HistoryEvent>,
  options: CheckOptions = {}
): ReadonlyArray<Violation> => checkers.flatMap(({ check }) => check(history, options))
