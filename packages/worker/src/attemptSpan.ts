/** The span of an attempt whose run was enqueued in a span: its child, wherever it runs. */
import type { Outcome } from "@orrery/core/Run"
import * as TraceParent from "@orrery/core/TraceParent"
import type { Assignment } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"

export const attemptSpan = <R>(
  assignment: Assignment,
  effect: Effect.Effect<Outcome, never, R>
): Effect.Effect<Outcome, never, R> => {
  if (assignment.trace === undefined) return effect
  const { attempt, runId, task, trace } = assignment
  const parent = TraceParent.externalSpan(trace)
  if (parent === undefined) return effect
  // A failure is an outcome, not a failure of the effect: the span says which.
  return effect.pipe(
    Effect.tap((outcome) =>
      Effect.annotateCurrentSpan(
        outcome._tag === "failure"
          ? { "orrery.outcome": outcome.failure.kind, "error.type": outcome.failure.tag }
          : { "orrery.outcome": outcome._tag }
      )
    ),
    Effect.withSpan(task, {
      kind: "consumer",
      parent,
      attributes: { "orrery.run": runId, "orrery.attempt": attempt }
    })
  )
}
