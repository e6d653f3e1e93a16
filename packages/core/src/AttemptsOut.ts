/** The attempts that are out, from the start of each to what becomes of its run. */
import { afterFailure } from "./afterFailure.js"
import type { Changes } from "./Changes.js"
import type { Deadline, Deadlines } from "./Deadlines.js"
import { assignmentOf, clearLease, type Entry, lose, noPermits, noRates, type Out, refOf, slotsOf } from "./Entry.js"
import { Leases } from "./Leases.js"
import type { Lines } from "./Lines.js"
import type { Numbers } from "./Numbers.js"
import type { QueueControl } from "./QueueControl.js"
import type { RetryBudgets } from "./RetryBudgets.js"
import type { Outcome, RunFailure } from "./Run.js"
import * as RunTimes from "./RunTimes.js"
import type { Started } from "./Started.js"

/** The owner gives a worker this long to notice its own timeout before it decides by itself. */
export const timeoutGraceMs = 2_000
/** A cancelled attempt that has not ended by then is final without its worker's word. */
export const cancelGraceMs = 10_000

export interface AttemptsHost {
  readonly partitionId: number
  readonly maxCrashes: number
  readonly out: Out
  readonly lines: Lines
  readonly control: QueueControl
  readonly budgets: RetryBudgets
  readonly numbers: Numbers
  readonly deadlines: Deadlines
  readonly changes: Changes
  readonly orderKeyOf: (entry: Entry) => number
}

export class AttemptsOut {
  readonly leases = new Leases()

  constructor(private readonly host: AttemptsHost) {}

  start(entry: Entry, worker: string, now: number, { isGated, permits, rates }: Started): void {
    const { changes, control, numbers } = this.host
    entry.attempt += 1
    entry.lease = numbers.next()
    entry.state = "running"
    entry.startedAt = now
    this.leases.add(entry, worker)
    entry.permits = permits
    entry.rates = control.take(rates, now)
    entry.isGated = isGated || control.isExact
    this.armTimeout(entry, now)
    if (!entry.isGated) this.assign(entry, now)
    changes.write(entry, entry.isGated && entry.unwritten === undefined ? "start" : "update")
  }

  /** One that began under a former owner. */
  adopt(entry: Entry, worker: string, now: number): void {
    entry.permits = this.host.lines.adopt(entry, now)
    this.leases.add(entry, worker)
    this.armTimeout(entry, now)
  }

  /** Its worker may hear of it. */
  assign(entry: Entry, now: number): void {
    const { lines, out, partitionId } = this.host
    if (entry.isGated && lines.isLate(entry.rates)) return this.takeBack(entry, now)
    this.settleRates(entry, true, now)
    const assignment = assignmentOf(entry, partitionId, RunTimes.attemptMs(entry, now))
    out.assignments.push({ worker: entry.worker!, assignment })
  }

  outcome(entry: Entry, outcome: Outcome, now: number): void {
    this.release(entry, now)
    switch (outcome._tag) {
      case "success":
        return this.host.changes.finish(entry, "succeeded", outcome.result, null)
      case "failure":
        return this.failed(entry, outcome, now)
      case "snooze":
        return this.snoozed(entry, outcome.delayMs, now)
      case "cancelled":
        return entry.cancelRequested ? this.cancelled(entry) : this.interrupted(entry)
      case "interrupted":
        return this.interrupted(entry)
    }
  }

  /** Somebody has cancelled its run. */
  cancel(entry: Entry, now: number): void {
    if (entry.cancelRequested) return
    entry.cancelRequested = true
    this.interrupt(entry)
    this.host.deadlines.setUnlessEarlier(entry, "cancel", now + cancelGraceMs)
  }

  /** Its worker is asked to end it; as nobody has cancelled the run, it goes back in line then. */
  interrupt(entry: Entry): void {
    this.host.out.cancels.push({ worker: entry.worker!, attempt: refOf(entry, this.host.partitionId) })
  }

  /** The worker has not begun, or has let go of it. */
  takeBack(entry: Entry, now: number): void {
    this.release(entry, now)
    this.interrupted(entry)
  }

  /** Those whose workers have not come back in time. */
  giveUpLost(now: number): void {
    for (const { entry, lostAt, worker } of this.leases.expired(now)) {
      this.release(entry, now)
      const end = lose(entry, worker, lostAt, this.host.maxCrashes)
      if (end === "uncounted") this.interrupted(entry)
      else if (end === "again") this.backInLine(entry)
      else this.host.changes.finish(entry, end, null, entry.failure)
    }
  }

  /** It should have ended by now. */
  overdue(entry: Entry, kind: Exclude<Deadline["kind"], "expire">, now: number): void {
    this.interrupt(entry)
    this.release(entry, now)
    if (kind === "cancel") return this.cancelled(entry)
    const message = `no outcome after ${RunTimes.attemptMs(entry, entry.startedAt ?? now)} ms`
    this.failed(entry, { failure: { kind: "timeout", tag: RunTimes.tags.timeout, message }, retryable: true }, now)
  }

  private release(entry: Entry, now: number): void {
    const { deadlines, lines, out } = this.host
    deadlines.clear(entry)
    lines.ended(entry.permits, now)
    entry.permits = noPermits
    this.settleRates(entry, false, now)
    this.leases.delete(entry)
    for (let slots = slotsOf(entry); slots > 0; slots--) out.freed.push(entry.worker!)
  }

  private settleRates(entry: Entry, isMade: boolean, now: number): void {
    entry.isGated = false
    if (entry.rates === noRates) return
    this.host.lines.settled(entry.rates, isMade, now)
    entry.rates = noRates
  }

  private failed(
    entry: Entry,
    failed: { readonly failure: RunFailure; readonly retryable: boolean; readonly retryAfterMs?: number | undefined },
    now: number
  ): void {
    const { failure, retryAfterMs, retryable } = failed
    const next = afterFailure(entry, { failure, retryable, retryAfterMs }, now, this.host.budgets)
    if (next._tag === "end") return this.host.changes.finish(entry, next.state, null, next.failure)
    entry.failure = next.failure
    if (entry.cancelRequested) return this.cancelled(entry)
    this.putOff(entry, "retrying", next.at)
  }

  private snoozed(entry: Entry, delayMs: number, now: number): void {
    if (entry.cancelRequested) return this.cancelled(entry)
    const at = now + delayMs
    if (at >= RunTimes.snoozesUntil(entry)) {
      return this.host.changes.finish(entry, "expired", null, RunTimes.snoozeText(entry, delayMs))
    }
    entry.attempt -= 1
    this.putOff(entry, "scheduled", at)
  }

  private putOff(entry: Entry, state: "retrying" | "scheduled", at: number): void {
    entry.state = state
    entry.scheduledAt = at
    entry.orderKey = this.host.orderKeyOf(entry)
    clearLease(entry)
    this.host.changes.settle(entry)
  }

  private cancelled(entry: Entry): void {
    this.host.changes.finish(entry, "cancelled", null, entry.failure)
  }

  private interrupted(entry: Entry): void {
    if (entry.cancelRequested) return this.cancelled(entry)
    entry.attempt -= 1
    this.backInLine(entry)
  }

  /** Ready again at its old place. */
  private backInLine(entry: Entry): void {
    entry.state = "ready"
    clearLease(entry)
    this.host.changes.settle(entry)
  }

  private armTimeout(entry: Entry, now: number): void {
    const from = entry.startedAt ?? now
    const timeoutMs = RunTimes.attemptMs(entry, from)
    if (timeoutMs > 0) this.host.deadlines.set(entry, "timeout", from + timeoutMs + timeoutGraceMs)
    else this.host.deadlines.clear(entry)
  }
}
