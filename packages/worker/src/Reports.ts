/** Sends the outcomes of one session's attempts until the owner has answered for each. */
import { failpoint } from "@orrery/core/Failpoint"
import type { OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Duration, Effect, Either, type Scope } from "effect"
import type { Held } from "./Attempts.js"
import * as Attempts from "./Attempts.js"
import type { Binding } from "./Binding.js"

/** Under way at once, per session. */
const reportsInFlightMax = 16
const reportRowsMax = 1_000
const reportCharsMax = 4 * 1024 * 1024
/** An outcome waits so many times longer for others while more attempts of its node wait here. */
const gatherPart = 10
/** Pause before a report that failed is repeated. */
const repeatPause = Duration.millis(50)

/**
 * Several reports in flight: an owner answers after its commit, and work must not wait for that. What ends while all of
 * them are under way goes with the next. Where a message is dear, an outcome waits a moment for others as long as there
 * is something that may end.
 */
export const sendAll = (attempts: Attempts.Attempts, binding: Binding): Effect.Effect<never, never, Scope.Scope> =>
  Effect.gen(function*() {
    const permits = yield* Effect.makeSemaphore(reportsInFlightMax)
    let inFlight = 0
    return yield* binding.wake.await.pipe(
      Effect.zipRight(permits.take(1)),
      Effect.zipRight(Effect.suspend(() => gathered(binding, inFlight))),
      Effect.zipRight(Effect.suspend(() => {
        const batch = takeBatch(binding)
        const sent = batch.length === 0 ? Effect.void : reportOnce(attempts, binding, batch)
        inFlight += 1
        const done = Effect.suspend(() => {
          inFlight -= 1
          return permits.release(1)
        })
        return Effect.forkScoped(Effect.ensuring(sent, done))
      })),
      Effect.forever
    )
  })

const gathered = (binding: Binding, inFlight: number): Effect.Effect<unknown> => {
  const { due, ready, session } = binding
  // The fibers that are ready to run now may end more attempts.
  if (session.gatherMs === 0) return Effect.yieldNow()
  return Effect.zipRight(
    Effect.yieldNow(),
    Effect.suspend(() => {
      if (inFlight === 0 && binding.running === 0 && ready.size === 0) return Effect.void
      // The next ones are here already: the slots do not wait for what the owner makes of the outcomes.
      return due.within(ready.size > 0 ? gatherPart * session.gatherMs : session.gatherMs)
    })
  )
}

const reportOnce = (
  attempts: Attempts.Attempts,
  binding: Binding,
  batch: ReadonlyArray<Held>
): Effect.Effect<void> => {
  const sentAt = performance.now()
  failpoint("report.before-send")
  const reports = batch.map((held) => ({ ...Attempts.refOf(held), outcome: held.outcome! }))
  return Effect.flatMap(Effect.either(binding.session.report(reports)), (answer) => {
    if (Either.isLeft(answer)) return repeat(batch, binding)
    failpoint("report.after-answer")
    Attempts.answered(attempts, binding, sentAt)
    batch.forEach((held, index) => settle(attempts, binding, held, answer.right[index]))
    return Effect.void
  })
}

const repeat = (batch: ReadonlyArray<Held>, binding: Binding): Effect.Effect<void> =>
  Effect.suspend(() => {
    for (const held of batch) if (held.binding === binding && binding.held.has(held)) Attempts.post(held)
    return Effect.sleep(repeatPause)
  })

const takeBatch = (binding: Binding): ReadonlyArray<Held> => {
  const batch: Array<Held> = []
  let chars = 0
  for (const held of binding.outbox) {
    if (batch.length >= reportRowsMax || chars >= reportCharsMax) return batch
    chars += Attempts.charsOf(held)
    batch.push(held)
    binding.outbox.delete(held)
  }
  binding.wake.unsafeClose()
  binding.due.close()
  return batch
}

const settle = (attempts: Attempts.Attempts, binding: Binding, held: Held, answer: OutcomeAnswer | undefined): void => {
  if (answer === "accepted") return Attempts.drop(attempts, held)
  if (answer === "stale") return Attempts.refused(attempts, held)
  // Meanwhile another node may have said `owned`: then it is in line there already.
  if (held.binding === binding) held.isHomeless = true
}
