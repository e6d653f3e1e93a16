/**
 * Proves that no run in memory has been forgotten: each entry of a `QueueMachine` is in exactly one of the places from which
 * something brings it on, and the counts that the machine keeps are those of its places.
 *
 *   ready, timer       has its seat in the window of its line: it comes to the head; a line with runs is up, or waits for
 *                      something that will be told it
 *   running            is held by a worker: an outcome, a deadline or the loss of the worker ends it
 *   settling, finishing  has a change that is unwritten or under way: the commit brings it on
 *
 * What is found is a bug. It costs a pass over what is in memory, so it is asked for rarely (`Reconciler` of cluster).
 */
import type { Entry } from "./Entry.js"
import type { QueueMachine } from "./QueueMachine.js"
import type { Seat, Window } from "./Window.js"

/** Runs that nothing brings on, and what is wrong with the first few. */
export interface Findings {
  readonly unaccounted: number
  readonly examples: ReadonlyArray<string>
}

const examplesMax = 5

/** What the shell is about to write, and what the journal is writing. */
export interface Writing {
  readonly waiting: Iterable<Entry>
  readonly sent: Iterable<Entry>
}

export const reconcile = (machine: QueueMachine, writing: Writing): Findings => {
  let unaccounted = 0
  const examples: Array<string> = []
  const expect = (holds: boolean, problem: () => string): void => {
    if (holds) return
    unaccounted += 1
    if (examples.length < examplesMax) examples.push(problem())
  }
  // The machine keeps its parts to itself; only this file looks at them.
  const entries = machine["entries"]
  const lines = machine["lines"]
  const timers = machine["waiting"]["timers"]
  const leases = machine["leases"]
  const waiting = new Set(writing.waiting)
  const sent = new Set(writing.sent)

  const seats = new Map<Seat<Entry>, Window<Entry>>()
  const take = (window: Window<Entry>, place: Entry["place"], line: string): void => {
    let inside = 0
    for (const seat of seatsOf(window)) {
      seats.set(seat, window)
      if (window["isInside"](seat)) inside += 1
      const entry = seat.item
      expect(
        entries.get(entry.id) === entry && entry.seat === seat && entry.place === place,
        () => `${line} has a seat for ${entry.id}, which is ${entry.place}`
      )
    }
    expect(window.size === inside, () => `${line} counts ${window.size} runs, ${inside} have a seat`)
  }
  take(timers, "timer", "the line of timers")
  for (const { name, window } of lines) take(window, "ready", `the line ${name}`)

  let due = 0
  let running = 0
  for (const entry of entries.values()) {
    switch (entry.place) {
      case "ready":
      case "timer": {
        const window = entry.place === "timer" ? timers : lines.get(entry.line)?.window
        const isSeated = entry.seat !== undefined && seats.get(entry.seat) === window
        expect(isSeated, () => `${entry.id} is ${entry.place} and has no seat`)
        if (entry.place === "ready" && !entry.inStoredLine) due += 1
        break
      }
      case "running":
        running += 1
        expect(
          leases.has(entry.worker ?? "", entry),
          () => `${entry.id} is running and held by nobody`
        )
        break
      default:
        expect(
          entry.unwritten !== undefined || entry.sent !== undefined,
          () => `${entry.id} is ${entry.place} and has nothing to be written`
        )
    }
    expect(
      (entry.unwritten === undefined || waiting.has(entry)) && (entry.sent === undefined || sent.has(entry)),
      () => `${entry.id} has a change that nobody writes`
    )
  }
  expect(machine.runningCount === running, () => `${machine.runningCount} runs are held, ${running} are running`)
  expect(
    machine["waiting"]["dueCount"] === due,
    () => `${machine["waiting"]["dueCount"]} due runs are counted, there are ${due}`
  )
  return { unaccounted, examples }
}

function* seatsOf(window: Window<Entry>): Iterable<Seat<Entry>> {
  for (const seat of window["heap"]) if (seat.taken) yield seat
  for (const seat of window["aside"]) if (seat.taken) yield seat
}

/** Where a line in memory ends: what sorts up to there must be in memory. */
export interface Edge {
  readonly key: number
  readonly seq: number
}

/** What memory says the store holds of a partition, up to the edges of its windows. */
export interface Expected {
  readonly running: number
  readonly timers: Edge & { readonly count: number }
  /** By line. One that is not among them is empty in the store. */
  readonly ready: ReadonlyMap<string, Edge & { readonly count: number }>
}

/**
 * `undefined` while something is on its way to or from the store: then memory and store may differ for a moment, and
 * nothing can be said.
 */
export const expected = (machine: QueueMachine): Expected | undefined => {
  if (machine["waiting"]["departed"].size > 0) return undefined
  const ready = new Map<string, { key: number; seq: number; count: number }>()
  for (const { name, window } of machine["lines"]) ready.set(name, { ...edgeOf(window), count: 0 })
  const timers = { ...edgeOf(machine["waiting"]["timers"]), count: 0 }
  let running = 0
  for (const entry of machine["entries"].values()) {
    if (entry.unwritten !== undefined || entry.sent !== undefined || entry.roll !== undefined) return undefined
    if (entry.place === "running") running += 1
    // One that has become due is still among the timers of the store.
    else if (entry.place === "timer" || !entry.inStoredLine) timers.count += 1
    else ready.get(entry.line)!.count += 1
  }
  return { running, timers, ready }
}

const edgeOf = (window: Window<Entry>): Edge => ({ key: window["edgeKey"], seq: window["edgeSeq"] })

/** What the store holds, counted no further than asked. */
export interface Tally {
  readonly running: number
  readonly timers: number
  /** By line, of all lines in which runs wait. */
  readonly ready: ReadonlyMap<string, number>
}

/** Runs of the store that memory does not know of, though it should. */
export const missing = (wanted: Expected, found: Tally): Findings => {
  let unaccounted = 0
  const examples: Array<string> = []
  const compare = (line: string, want: number, have: number): void => {
    if (want === have) return
    unaccounted += Math.abs(have - want)
    if (examples.length < examplesMax) examples.push(`the store has ${have} runs of ${line}, memory ${want}`)
  }
  // Fewer are running in the store when a handler has ended its run in a transaction and its worker has not reported yet.
  compare("those running", Math.min(wanted.running, found.running), found.running)
  compare("the line of timers", wanted.timers.count, found.timers)
  for (const [line, { count }] of wanted.ready) compare(`the line ${line}`, count, found.ready.get(line) ?? 0)
  for (const [line, count] of found.ready) if (!wanted.ready.has(line)) compare(`the line ${line}`, 0, count)
  return { unaccounted, examples }
}
