/**
 * Time and chance of a simulation: one list of events in order of their time, worked off without a pause. What is due at
 * the same instant comes in an order that the seed decides.
 *
 * While a simulation runs, the clocks and timers of this JavaScript process are those of the simulated process whose turn
 * it is, so the code under test is the code that ships. A simulation is one synchronous call: nothing else sees them.
 */
import { GlobalValue } from "effect"
import type { SimProcess } from "./SimProcess.js"
import { Random } from "../Random.js"

/** When simulations begin, ms since 1970: times in a history look like times. */
export const epochMs = Date.UTC(2030, 0, 1)

/** Of one simulation. Above it something goes round in circles. */
const stepsMax = 1_000_000

export interface SimEvent {
  readonly at: number
  readonly tie: number
  readonly run: () => void
  isCancelled: boolean
}

export class World {
  /** True ms since the simulation began. */
  now = 0
  /** Events worked off. */
  steps = 0
  /** Whose turn it is. */
  current: SimProcess | undefined
  readonly random: Random
  /** For `Math.random`. Whoever draws from it moves no event. */
  readonly noise: Random
  private readonly heap: Array<SimEvent> = []

  constructor(seed: number) {
    this.random = new Random(seed)
    this.noise = new Random(~seed)
  }

  /** The database clock, ms since 1970. */
  get databaseTime(): number {
    return epochMs + this.now
  }

  after(delayMs: number, run: () => void): SimEvent {
    const event = { at: this.now + Math.max(0, delayMs), tie: this.random.next(), run, isCancelled: false }
    push(this.heap, event)
    return event
  }

  /** Runs `body` among the clocks and timers of the simulated processes. */
  inside<A>(body: () => A): A {
    const restore = substitute(this)
    try {
      return body()
    } finally {
      restore()
    }
  }

  /** Works off events until the time `until`. Only `inside`. */
  run(until: number): void {
    for (;;) {
      const first = this.heap[0]
      if (first === undefined || first.at > until) {
        this.now = until
        return
      }
      pop(this.heap)
      if (first.isCancelled) continue
      this.now = first.at
      this.steps += 1
      if (this.steps > stepsMax) throw new Error(`the simulation does not end: ${stepsMax} steps, ${this.now} ms`)
      first.run()
    }
  }
}

/**
 * Where Effect keeps root fibers until they end. Those of killed processes, and of a history that is over, never do: kept,
 * they would hold every history in memory.
 */
const rootFibers: { add: (...child: ReadonlyArray<unknown>) => void } = GlobalValue.globalValue(
  Symbol.for("effect/FiberScope/Global"),
  () => {
    throw new Error("this version of effect keeps its root fibers elsewhere")
  }
)

const before = (a: SimEvent, b: SimEvent): boolean => a.at < b.at || (a.at === b.at && a.tie < b.tie)

const push = (heap: Array<SimEvent>, event: SimEvent): void => {
  let at = heap.length
  heap.push(event)
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (!before(event, heap[parent]!)) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = event
}

const pop = (heap: Array<SimEvent>): void => {
  const last = heap.pop()!
  if (heap.length === 0) return
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1
    if (!before(heap[child]!, last)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = last
}

const nsPerMs = 1e6
/** Longer than any history, ms: with such an interval Effect keeps a process alive that waits for ever. */
const neverMs = 2 ** 30

const repeated = (process: SimProcess, run: () => void, ms: number): { isCancelled: boolean } => {
  const interval = { isCancelled: false }
  const again = (): void => {
    if (interval.isCancelled) return
    run()
    process.later(ms, again)
  }
  if (ms < neverMs) process.later(ms, again)
  return interval
}

/** Puts the clocks and timers of the simulated process in place of this one's. Answers how to undo it. */
const substitute = (world: World): () => void => {
  const clocks = { now: performance.now, dateNow: Date.now, random: Math.random, hrtime: process.hrtime.bigint }
  const timers = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setImmediate: globalThis.setImmediate,
    clearImmediate: globalThis.clearImmediate,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
    queueMicrotask: globalThis.queueMicrotask
  }
  const running = (): SimProcess => {
    if (world.current === undefined) throw new Error("a timer was set outside of any simulated process")
    return world.current
  }
  const cancel = (event: unknown): void => {
    if (typeof event === "object" && event !== null) (event as SimEvent).isCancelled = true
  }
  const { add } = rootFibers
  rootFibers.add = () => undefined
  const { stackTraceLimit } = Error
  // A node that cannot be reached is an error each time it is tried; nobody reads where.
  Error.stackTraceLimit = 0
  const monotonic = (): number => world.current?.monotonic() ?? world.now
  performance.now = monotonic
  // What Effect takes the time of, as `Effect.timed` does.
  process.hrtime.bigint = () => BigInt(Math.round(monotonic() * nsPerMs))
  Date.now = () => world.current?.wallClock() ?? world.databaseTime
  // Effect draws a hash for each object that is hashed for the first time in this process: in one history, and not in the
  // next one of the same seed.
  Math.random = () => world.noise.next()
  Object.assign(globalThis, {
    // As Node does: whole milliseconds, and at least one.
    setTimeout: (run: () => void, ms = 0) => running().later(Math.max(1, Math.trunc(ms)), run),
    clearTimeout: cancel,
    setImmediate: (run: () => void) => running().later(0, run),
    clearImmediate: cancel,
    setInterval: (run: () => void, ms = 0) => repeated(running(), run, Math.max(1, Math.trunc(ms))),
    clearInterval: cancel,
    queueMicrotask: (run: () => void) => running().soon(run)
  })
  return () => {
    rootFibers.add = add
    Error.stackTraceLimit = stackTraceLimit
    performance.now = clocks.now
    process.hrtime.bigint = clocks.hrtime
    Date.now = clocks.dateNow
    Math.random = clocks.random
    Object.assign(globalThis, timers)
  }
}
