/** What a schedule would do over a time with an outage in it: the machine itself, played without anything around it. */
import type { RunId } from "../RunId.js"
import type { NextFire } from "./NextFire.js"
import * as ScheduleMachine from "./ScheduleMachine.js"
import type { SchedulePolicy } from "./SchedulePolicy.js"
import type { Reason, ScheduleState, Step } from "./ScheduleState.js"

/** Most lines of a simulation; it ends early at the bound. */
export const linesMax = 10_000

export interface Window {
  readonly from: number
  /** Not included. */
  readonly until: number
}

/** What became of a tick, or of `count` in a row without a run. */
export interface Line {
  readonly nominal: number
  readonly count: number
  readonly outcome: "ran" | "cancelled" | "skipped" | "missed"
  readonly reason: Reason
  readonly startedAt: number | null
  readonly endedAt: number | null
}

export interface Plan {
  readonly during: Window
  /** Nothing is decided in it. Runs that were started before go on to their end. */
  readonly outage?: Window | undefined
  /** How long each run takes. Default 0. */
  readonly runMs?: number | undefined
}

/** In the order in which things are decided. A run that has not ended by the end of the time still has its line. */
export const simulateSchedule = (
  fires: NextFire,
  policy: SchedulePolicy,
  { during, outage, runMs = 0 }: Plan
): ReadonlyArray<Line> => {
  const options = { id: "simulated", policy, jitterMs: 0, maxFires: null }
  let state: ScheduleState = ScheduleMachine.make(options, fires, during.from - 1)
  const lines: Array<{ -readonly [K in keyof Line]: Line[K] }> = []
  const running = new Map<RunId, (typeof lines)[number]>()

  const take = (step: Step, now: number) => {
    state = step.state
    for (const { count, first, outcome, reason, runId } of step.decisions.records) {
      const isRun = outcome === "enqueued"
      const line = {
        ...{ nominal: first, count, outcome: isRun ? "ran" as const : outcome, reason },
        startedAt: isRun ? now : null,
        endedAt: isRun ? now + runMs : null
      }
      lines.push(line)
      if (runId !== null) running.set(runId, line)
    }
    for (const id of step.decisions.cancels) {
      const line = running.get(id)
      if (line === undefined) continue
      line.outcome = "cancelled"
      line.endedAt = now
    }
  }

  /** Nothing is decided while the outage lasts. */
  const seenAt = (ms: number) => outage !== undefined && ms >= outage.from && ms < outage.until ? outage.until : ms

  for (let now = during.from; lines.length < linesMax;) {
    const ends = [...running].map(([id, line]) => ({ id, at: seenAt(line.endedAt!) })).sort((a, b) => a.at - b.at)
    const timer = ScheduleMachine.nextTimer(state)
    const tickAt = timer === undefined ? Number.POSITIVE_INFINITY : seenAt(Math.max(timer, now))
    const [end] = ends
    now = Math.max(now, Math.min(tickAt, end?.at ?? Number.POSITIVE_INFINITY))
    if (now >= during.until) break
    if (end !== undefined && end.at <= tickAt) {
      running.delete(end.id)
      take(ScheduleMachine.finished(state, fires, { runId: end.id, isFailure: false }, now), now)
    } else take(ScheduleMachine.step(state, fires, now), now)
  }
  return lines
}
