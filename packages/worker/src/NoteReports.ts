/**
 * Sends what the attempts of one session tell: all of it together, once a second at most; at once what somebody waits for, a
 * checkpoint or the end of an attempt.
 */
import type { OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Clock, Duration, Effect, Either } from "effect"
import type { Held } from "./Attempts.js"
import * as Attempts from "./Attempts.js"
import type { Binding } from "./Binding.js"

const roundMs = 1_000
/** Of one message. */
const rowsMax = 500
const charsMax = 1024 * 1024
/** Pause before a report that was not answered is repeated. */
const repeatPause = Duration.millis(50)
/** After so many without an answer the outcome of an attempt that has ended goes without its last notes. */
const failuresMax = 60

export const sendAll = (attempts: Attempts.Attempts, binding: Binding): Effect.Effect<never> => {
  /** Monotonic, ms: when everything was sent. */
  let roundAt = Number.NEGATIVE_INFINITY
  const once = Effect.suspend(() => {
    const left = roundAt + roundMs - performance.now()
    return left > 0 ? binding.noteDue.within(left) : Effect.void
  }).pipe(
    Effect.zipRight(Clock.currentTimeMillis),
    Effect.flatMap((at) => {
      const isRound = performance.now() >= roundAt + roundMs
      if (isRound) roundAt = performance.now()
      return send(attempts, binding, isRound, at)
    })
  )
  return Effect.forever(Effect.zipRight(binding.noteWake.await, once))
}

const isUrgent = ({ notes, outcome }: Held): boolean => outcome !== undefined || notes?.isUrgent === true

const send = (attempts: Attempts.Attempts, binding: Binding, isRound: boolean, at: number): Effect.Effect<void> => {
  const batch: Array<{ readonly held: Held; readonly report: NonNullable<ReturnType<typeof reportOf>> }> = []
  let chars = 0
  let isMore = false
  binding.noteDue.close()
  for (const held of binding.noted) {
    if (!isRound && !isUrgent(held)) continue
    if (batch.length >= rowsMax || chars >= charsMax) {
      isMore = true
      break
    }
    binding.noted.delete(held)
    const report = reportOf(held, at)
    if (report === undefined) continue
    chars += (report.checkpoint?.length ?? 0) + (report.progress?.length ?? 0)
    for (const { text } of report.lines) chars += text.length
    batch.push({ held, report })
  }
  if (binding.noted.size === 0) binding.noteWake.unsafeClose()
  if (isMore) binding.noteDue.open()
  if (batch.length === 0) return Effect.void
  // The session may end before the call does: what was under way goes to the next one.
  const told = Effect.onInterrupt(
    Effect.either(binding.session.note(batch.map(({ report }) => report))),
    () => Effect.sync(() => batch.forEach(({ held }) => again(held)))
  )
  return Effect.flatMap(told, (answer) => {
    if (Either.isRight(answer)) {
      let isAway = false
      batch.forEach(({ held }, index) => {
        if (!settle(attempts, held, answer.right[index])) isAway = true
      })
      return isAway ? Effect.sleep(repeatPause) : Effect.void
    }
    for (const { held } of batch) again(held)
    return Effect.sleep(repeatPause)
  })
}

const reportOf = (held: Held, at: number) => held.notes?.take(Attempts.refOf(held), at)

/** False: another node owns the partition. It will say so, and then the notes go there. */
const settle = (attempts: Attempts.Attempts, held: Held, answer: OutcomeAnswer | undefined): boolean => {
  if (answer === "accepted") {
    held.notes?.accepted()
    Attempts.post(held)
  } else if (answer === "stale") {
    held.notes?.drop()
    if (held.outcome === undefined) Attempts.refused(attempts, held)
    else Attempts.post(held)
  } else {
    again(held)
    return false
  }
  return true
}

/** To be sent again, by whichever session the attempt is bound to then. */
const again = (held: Held): void => {
  const { notes } = held
  if (notes === undefined) return
  notes.failed()
  if (held.outcome !== undefined && notes.failures >= failuresMax) notes.drop()
  Attempts.post(held)
  if (notes.isPending) Attempts.note(held)
}
