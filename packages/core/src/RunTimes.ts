/**
 * Until when a run may wait, and how long an attempt may take, by its policy and its row alone: so a new owner decides like
 * the one before.
 *
 *   queueTtl   from `scheduledAt` to its first assignment
 *   timeout    from the start of an attempt to its end
 *   deadline   from `createdAt` to the end of the run, over all attempts and pauses
 */
import { type Entry, failureText, policyOf } from "./Entry.js"
import { wasStarted } from "./Numbers.js"
import type { RunFailure } from "./Run.js"

/** Shortest and longest snooze: 0.1 s to 30 days, ms. */
export const snoozeMs = { min: 100, max: 30 * 24 * 3600 * 1000 }
/** How long after its enqueue a run without a deadline may be snoozed to: 30 days, ms. */
export const snoozeTotalMsMax = 30 * 24 * 3600 * 1000

/** Tags of `kind: "timeout"`. */
export const tags = {
  timeout: "Timeout",
  heartbeat: "HeartbeatTimeout",
  queueTtl: "QueueTtlExceeded",
  deadline: "DeadlineExceeded",
  snooze: "SnoozeLimitExceeded"
} as const

/** When it is over, whatever becomes of its attempts; `Infinity`: never. */
export const endsBy = (entry: Entry): number => {
  const { deadlineMs } = policyOf(entry)
  return deadlineMs === undefined ? Infinity : entry.createdAt + deadlineMs
}

const startsBy = (entry: Entry): number => {
  const { queueTtlMs } = policyOf(entry)
  return queueTtlMs === undefined || wasStarted(entry.lease) ? Infinity : entry.scheduledAt + queueTtlMs
}

/** Until when it may wait in line; `Infinity`: for ever. */
export const expiresAt = (entry: Entry): number => Math.min(startsBy(entry), endsBy(entry))

/** How long the attempt may take that starts at `startedAt`, ms; 0: as long as it likes. */
export const attemptMs = (entry: Entry, startedAt: number): number => {
  const { deadlineMs, timeoutMs } = policyOf(entry)
  if (deadlineMs === undefined) return timeoutMs
  const left = Math.max(1, Math.ceil(entry.createdAt + deadlineMs - startedAt))
  return timeoutMs === 0 ? left : Math.min(left, timeoutMs)
}

/** Whether an attempt that had no more time had none because of the deadline of the run. */
export const isCutByDeadline = (entry: Entry): boolean => {
  const { deadlineMs, timeoutMs } = policyOf(entry)
  if (deadlineMs === undefined || entry.startedAt === null) return false
  return timeoutMs === 0 || entry.createdAt + deadlineMs - entry.startedAt <= timeoutMs
}

/** Until when it may be put off. */
export const snoozesUntil = (entry: Entry): number => Math.min(endsBy(entry), entry.createdAt + snoozeTotalMsMax)

/** Why a run has expired at `now`. */
export const expiryText = (entry: Entry, now: number): string => {
  const { deadlineMs, queueTtlMs } = policyOf(entry)
  const last = entry.failure === null ? undefined : JSON.parse(entry.failure) as RunFailure
  const before = last === undefined ? "" : `; before: ${last.tag} ${last.message}`
  return endsBy(entry) > now
    ? failureText("timeout", tags.queueTtl, `no worker had it within ${queueTtlMs} ms of its time`)
    : failureText("timeout", tags.deadline, `not ended within ${deadlineMs} ms of its enqueue${before}`)
}

/** Why a run that was to be put off has expired instead. */
export const snoozeText = (entry: Entry, delayMs: number): string => {
  const { deadlineMs } = policyOf(entry)
  return deadlineMs === undefined
    ? failureText(
      "timeout",
      tags.snooze,
      `a snooze of ${delayMs} ms would end ${snoozeTotalMsMax} ms after its enqueue or later`
    )
    : failureText(
      "timeout",
      tags.deadline,
      `a snooze of ${delayMs} ms would end after its deadline, ${deadlineMs} ms after its enqueue`
    )
}
