/**
 * What a schedule decides. Pure: the state, a command and the time give the next state and what is to be done, which the
 * caller makes durable in one transaction. The same input decides alike, and ids of runs are derived from nominal times:
 * a step that is done twice does nothing twice.
 *
 * Every tick is accounted for once: it makes a run, or waits in the buffer, or a record says why it did not. A step looks at
 * a bounded number of ticks; `nextTimer` is then in the past and the next step goes on.
 */
import { Either } from "effect"
import { InvalidRequest } from "../Errors.js"
import type { RunId } from "../RunId.js"
import type { NextFire } from "./NextFire.js"
import * as SchedulePolicy from "./SchedulePolicy.js"
import * as scheduleRunId from "./scheduleRunId.js"
import {
  type Backfill,
  bufferMax,
  type Reason,
  reasonLengthMax,
  type Refusal,
  RevisionConflict,
  type ScheduleState,
  skipNextMax,
  type Start,
  type Step,
  type TickRecord
} from "./ScheduleState.js"

/** Ticks looked at in one step. */
export const ticksPerStepMax = 1_000
/** Runs made in one step. A backfill makes half of it at most. */
export const startsPerStepMax = 100
/** Most ticks of a backfill. A larger range is refused. */
export const backfillTicksMax = 10_000
export const backfillPerMinuteMax = 6_000
const instantMax = 8.64e15
/** Runs of one schedule whose ends are looked after. */
const openMax = 1_000

export type Command =
  | { readonly _tag: "pause"; readonly by: string; readonly why: string }
  | { readonly _tag: "resume" }
  | { readonly _tag: "skipNext"; readonly count: number }
  | { readonly _tag: "skipAt"; readonly nominal: number }
  /** `at`: when it was asked for, by any clock. Together with `requestId` it names the run. */
  | { readonly _tag: "trigger"; readonly requestId: string; readonly at: number }
  | {
    readonly _tag: "backfill"
    readonly from: number
    readonly until: number
    readonly order: Backfill["order"]
    readonly perMinute: number
  }
  | { readonly _tag: "cancelBackfill" }

/** A new schedule. `now` by the database clock. */
export const make = (
  options: Pick<ScheduleState, "id" | "policy" | "jitterMs" | "maxFires">,
  fires: NextFire,
  now: number
): ScheduleState => ({
  ...options,
  revision: 1,
  paused: null,
  pausedUntil: 0,
  nextAt: fires.next(now) ?? null,
  fires: 0,
  skipNext: 0,
  skipAt: [],
  buffer: [],
  open: [],
  backfill: null,
  missed: 0,
  skipped: 0
})

/**
 * Another spec or policy: from `now` on. The caller has stepped until nothing was due; what the old spec owed is recorded then.
 * Skips by number stay; skips of instants that are gone do no harm.
 */
export const update = (
  state: ScheduleState,
  options: Pick<ScheduleState, "policy" | "jitterMs" | "maxFires">,
  fires: NextFire,
  now: number
): ScheduleState => ({
  ...state,
  ...options,
  revision: state.revision + 1,
  // A fixed delay goes on counting from the end of the run that is still going.
  nextAt: fires.delayMs !== undefined && state.open.length > 0 ? null : fires.next(now) ?? null
})

/** Instant at which a step is next worth doing; `undefined`: not before something happens. */
export const nextTimer = (state: ScheduleState): number | undefined => {
  const tick = state.paused !== null || state.nextAt === null ? undefined : state.nextAt + jitterOf(state)
  const times = [tick, state.backfill?.nextAt].filter((time) => time !== undefined)
  return times.length === 0 ? undefined : Math.min(...times)
}

/** Whether ticks are due that no step has looked at: of a paused schedule those during the pause. */
export const isOwing = (state: ScheduleState, now: number): boolean =>
  state.nextAt !== null && state.nextAt + jitterOf(state) <= now

/** Does what is due at `now`. */
export const step = (state: ScheduleState, fires: NextFire, now: number): Step => {
  const draft = new Draft(state, fires, now)
  if (state.paused === null) draft.tick()
  draft.backfill()
  return draft.done()
}

/** Of a paused schedule: records what was due until now as skipped, so that it can be changed. */
export const settlePause = (state: ScheduleState, fires: NextFire, now: number): Step => {
  const draft = new Draft({ ...state, pausedUntil: Math.max(state.pausedUntil, now) }, fires, now)
  draft.tick()
  return draft.done()
}

/** A run of the schedule is over. Runs the schedule does not know are ignored, so it may be told again. */
export const finished = (
  state: ScheduleState,
  fires: NextFire,
  run: { readonly runId: RunId; readonly isFailure: boolean },
  now: number
): Step => {
  if (!state.open.includes(run.runId)) return new Draft(state, fires, now).done()
  const draft = new Draft({ ...state, open: state.open.filter((id) => id !== run.runId) }, fires, now)
  if (run.isFailure && state.policy.pauseOnFailure && state.paused === null) {
    draft.change({
      paused: { by: "pauseOnFailure", why: `run ${run.runId} failed`, at: now },
      revision: state.revision + 1
    })
  }
  draft.startBuffered()
  draft.countDelay()
  return draft.done()
}

/**
 * An operation. `expected`: the revision the caller has seen; anything else is refused, and nothing happens. Left out: whatever
 * the state is. Each one grows the revision. What can be asked twice without harm (pause, resume) may be.
 */
export const apply = (
  state: ScheduleState,
  fires: NextFire,
  command: Command,
  now: number,
  expected?: number
): Either.Either<Step, Refusal> => {
  if (expected !== undefined && expected !== state.revision) {
    return Either.left(new RevisionConflict({ schedule: state.id, expected, actual: state.revision }))
  }
  const problem = problemOf(state, fires, command)
  if (problem !== undefined) return Either.left(problem)
  const draft = new Draft({ ...state, revision: state.revision + 1 }, fires, now)
  switch (command._tag) {
    case "pause":
      draft.change({ paused: { by: command.by, why: command.why, at: now } })
      break
    case "resume":
      if (state.paused !== null) draft.change({ paused: null, pausedUntil: Math.max(state.pausedUntil, now) })
      draft.startBuffered()
      break
    case "skipNext":
      draft.change({ skipNext: command.count })
      break
    case "skipAt":
      draft.change({ skipAt: [...new Set([...state.skipAt, command.nominal])].sort((a, b) => a - b) })
      break
    case "trigger":
      draft.start(command.at, scheduleRunId.ofRequest(state.id, command.requestId, command.at), "trigger")
      break
    case "backfill": {
      const { from, order, perMinute, until } = command
      draft.change({ backfill: { from, until, order, perMinute, nextAt: now } })
      break
    }
    case "cancelBackfill":
      draft.change({ backfill: null })
  }
  return Either.right(draft.done())
}

/** Nominal times a backfill would make runs for, the oldest first; one more than allowed when there are too many. */
export const backfillTicks = (fires: NextFire, from: number, until: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let at = fires.next(from - 1); at !== undefined && at <= until; at = fires.next(at)) {
    found.push(at)
    if (found.length > backfillTicksMax) break
  }
  return found
}

const problemOf = (state: ScheduleState, fires: NextFire, command: Command): InvalidRequest | undefined => {
  const invalid = (field: string, limit: string, actual: string | number) =>
    new InvalidRequest({ field, limit, actual: String(actual) })
  switch (command._tag) {
    case "pause":
      for (const field of ["by", "why"] as const) {
        const { length } = command[field]
        if (length > reasonLengthMax) return invalid(field, `at most ${reasonLengthMax} characters`, length)
      }
      return undefined
    case "skipNext":
      return Number.isInteger(command.count) && command.count >= 0 && command.count <= skipNextMax
        ? undefined
        : invalid("count", `0 to ${skipNextMax}`, command.count)
    case "skipAt":
      if (fires.delayMs !== undefined || fires.next(command.nominal - 1) !== command.nominal) {
        return invalid("nominal", "an instant at which the schedule fires", new Date(command.nominal).toISOString())
      }
      return state.skipAt.length < bufferMax ? undefined : invalid("skipAt", `at most ${bufferMax} instants`, bufferMax)
    case "backfill": {
      if (fires.delayMs !== undefined) return invalid("backfill", "of a schedule whose instants are known", "a delay")
      if (state.backfill !== null) return invalid("backfill", "one at a time", "another is going on")
      if (!(command.until >= command.from)) return invalid("until", "no earlier than from", command.until)
      const { perMinute } = command
      if (!(Number.isInteger(perMinute) && perMinute >= 1 && perMinute <= backfillPerMinuteMax)) {
        return invalid("perMinute", `1 to ${backfillPerMinuteMax}`, perMinute)
      }
      const count = backfillTicks(fires, command.from, command.until).length
      return count > 0 && count <= backfillTicksMax
        ? undefined
        : invalid("backfill", `1 to ${backfillTicksMax} ticks`, count === 0 ? 0 : `more than ${backfillTicksMax}`)
    }
    case "trigger":
      if (!(command.at >= 0 && command.at <= instantMax)) return invalid("at", "an instant after 1970", command.at)
      return command.requestId.length <= reasonLengthMax
        ? undefined
        : invalid("requestId", `at most ${reasonLengthMax} characters`, command.requestId.length)
    default:
      return undefined
  }
}

/** How long after their nominal times the ticks of a schedule are made, ms. */
export const jitterOf = (state: ScheduleState): number =>
  state.jitterMs === 0 ? 0 : Math.floor(scheduleRunId.fractionOf(state.id) * state.jitterMs)

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** One step in the making. */
class Draft {
  private readonly state: Mutable<ScheduleState>
  private readonly starts: Array<Start> = []
  private readonly cancels: Array<RunId> = []
  private readonly records: Array<Mutable<TickRecord>> = []
  private readonly jitter: number
  private readonly tracksRuns: boolean

  constructor(state: ScheduleState, private readonly fires: NextFire, private readonly now: number) {
    this.state = { ...state }
    this.jitter = jitterOf(state)
    this.tracksRuns = state.policy.overlap !== "allowAll" || state.policy.pauseOnFailure || fires.delayMs !== undefined
  }

  done(): Step {
    const { cancels, records, starts } = this
    return { state: this.state, decisions: { starts, cancels, records } }
  }

  change(changes: Partial<ScheduleState>): void {
    Object.assign(this.state, changes)
  }

  get isExhausted(): boolean {
    // Those that wait will make runs.
    return this.state.maxFires !== null && this.state.fires + this.state.buffer.length >= this.state.maxFires
  }

  /** Looks at what is due, in order. */
  tick(): void {
    const { fires } = this
    for (let looked = 0; looked < ticksPerStepMax && this.starts.length < startsPerStepMax; looked++) {
      const nominal = this.state.nextAt
      if (nominal === null || nominal + this.jitter > this.now) return
      if (this.isExhausted) return this.change({ nextAt: null })
      const made = this.starts.length + this.state.buffer.length
      const following = fires.delayMs === undefined ? fires.next(nominal) ?? null : null
      this.look(nominal, following === null || following + this.jitter > this.now)
      // A delay that made no run has no end to wait for.
      const isWaiting = this.starts.length + this.state.buffer.length > made
      this.state.nextAt = fires.delayMs === undefined || isWaiting ? following : this.now + fires.delayMs
    }
  }

  private look(nominal: number, isLastDue: boolean): void {
    const { skipAt, skipNext } = this.state
    if (nominal <= this.state.pausedUntil) return this.record(nominal, "skipped", "paused")
    if (skipAt.length > 0 && skipAt[0]! <= nominal) {
      this.state.skipAt = skipAt.filter((each) => each > nominal)
      if (skipAt.includes(nominal)) return this.record(nominal, "skipped", "asked")
    }
    if (skipNext > 0) {
      this.state.skipNext = skipNext - 1
      return this.record(nominal, "skipped", "asked")
    }
    const latenessMs = this.now - nominal - this.jitter
    const verdict = SchedulePolicy.onTime(this.state.policy, latenessMs, isLastDue)
    if (verdict !== "fire") return this.record(nominal, "missed", verdict)
    this.admit(nominal)
  }

  private admit(nominal: number): void {
    const { buffer, open, policy } = this.state
    if (policy.overlap === "allowAll" || (open.length === 0 && buffer.length === 0)) {
      return this.startTick(nominal, "tick")
    }
    switch (policy.overlap) {
      case "skip":
        return this.record(nominal, "skipped", "overlap")
      case "bufferOne":
        if (buffer.length > 0) return this.record(nominal, "skipped", "overlap")
        break
      case "bufferAll":
        if (buffer.length >= bufferMax) return this.record(nominal, "missed", "buffer-full")
        break
      case "cancelOther":
        for (const id of open) if (!this.cancels.includes(id)) this.cancels.push(id)
        for (const waiting of buffer) this.record(waiting, "skipped", "overlap")
        this.state.buffer = []
    }
    this.state.buffer = [...this.state.buffer, nominal]
  }

  /** The first of those that wait, when nothing is in its way any more. */
  startBuffered(): void {
    const [nominal, ...rest] = this.state.buffer
    if (nominal === undefined || this.state.open.length > 0 || this.state.paused !== null) return
    this.state.buffer = rest
    this.startTick(nominal, "buffered")
  }

  /** A fixed delay counts from the end of the last run that is going. */
  countDelay(): void {
    const { delayMs } = this.fires
    if (delayMs === undefined || this.state.open.length > 0 || this.isExhausted) return
    this.state.nextAt = this.now + delayMs
  }

  private startTick(nominal: number, reason: "tick" | "buffered"): void {
    this.state.fires += 1
    this.start(nominal, scheduleRunId.ofTick(this.state.id, nominal), reason)
  }

  start(nominal: number, runId: RunId, reason: Reason): void {
    const at = reason === "tick" ? nominal + this.jitter : this.now
    this.starts.push({ runId, nominal, at, ...reason === "backfill" ? { isBackfill: true } : undefined })
    this.records.push({ first: nominal, last: nominal, count: 1, outcome: "enqueued", reason, runId })
    // Of more the oldest are not looked after any more.
    if (this.tracksRuns && reason !== "backfill") this.state.open = [...this.state.open.slice(1 - openMax), runId]
  }

  backfill(): void {
    const { fires } = this
    const backfill = this.state.backfill
    if (backfill === null || backfill.nextAt > this.now) return
    const ticks = backfillTicks(fires, backfill.from, backfill.until)
    // A second's worth of the rate at a time, and at most half of what a step may start.
    const batch = Math.min(Math.ceil(backfill.perMinute / 60), startsPerStepMax / 2)
    const isOldest = backfill.order === "oldest"
    const chosen = isOldest ? ticks.slice(0, batch) : ticks.slice(-batch).reverse()
    for (const nominal of chosen) this.start(nominal, scheduleRunId.ofTick(this.state.id, nominal), "backfill")
    if (chosen.length === ticks.length) return this.change({ backfill: null })
    const edge = isOldest ? { from: chosen.at(-1)! + 1 } : { until: chosen.at(-1)! - 1 }
    const nextAt = this.now + Math.ceil((chosen.length * 60_000) / backfill.perMinute)
    this.change({ backfill: { ...backfill, ...edge, nextAt } })
  }

  private record(nominal: number, outcome: "skipped" | "missed", reason: Reason): void {
    this.state[outcome] += 1
    const last = this.records.at(-1)
    if (last !== undefined && last.outcome === outcome && last.reason === reason) {
      last.last = nominal
      last.count += 1
    } else this.records.push({ first: nominal, last: nominal, count: 1, outcome, reason, runId: null })
  }
}
