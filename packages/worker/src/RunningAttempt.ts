/** `Attempt` for a handler. One small object per attempt: what is rarely asked for is made when it is. */
import { InvalidRequest } from "@orrery/core/Errors"
import type { Attempt, AttemptNotes } from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { Clock, Effect, Option, Schedule } from "effect"
import type { Held } from "./Attempts.js"
import { Notes } from "./Notes.js"

/** Pause before the owner is asked again for a checkpoint. */
const repeatPause = "50 millis"

type Service = Attempt["Type"]

export class RunningAttempt implements Service {
  constructor(private readonly held: Held) {}

  get runId() {
    return this.held.assignment.runId
  }
  get attempt() {
    return this.held.assignment.attempt
  }
  get fencingToken() {
    return `${this.held.assignment.lease}.${this.held.assignment.attempt}`
  }
  get idempotencyKey() {
    return this.held.assignment.runId
  }
  get timeoutMs() {
    return this.held.assignment.timeoutMs
  }
  get committed(): Outcome | undefined {
    return this.held.committed
  }
  set committed(outcome: Outcome) {
    this.held.committed = outcome
  }
  get deadline() {
    const { assignment: { timeoutMs }, since } = this.held
    return timeoutMs === 0 ? undefined : Math.floor(performance.timeOrigin + since + timeoutMs)
  }
  get heartbeat() {
    const { held } = this
    return Effect.sync(() => {
      held.beatAt = performance.now()
    })
  }
  /** Of tasks without a schema for it. */
  get checkpoint() {
    return Option.none()
  }
  get progress() {
    return (percent: number) =>
      Effect.suspend(() => {
        if (!(percent >= 0 && percent <= 100)) {
          return Effect.die(new InvalidRequest({ field: "progress", limit: "0 to 100", actual: String(percent) }))
        }
        notesOf(this.held).setProgress(String(percent))
        return Effect.void
      })
  }
  get log() {
    return (line: string) =>
      Effect.map(Clock.currentTimeMillis, (at) => notesOf(this.held).addLine(String(line), at, performance.now()))
  }
  get notes(): AttemptNotes {
    const { held } = this
    return {
      progress: (json) => notesOf(held).setProgress(json),
      saveCheckpoint: (json) =>
        Effect.async<void>((resume) => notesOf(held).saveCheckpoint(json, () => resume(Effect.void))),
      loadCheckpoint: Effect.suspend(() => {
        const { attempt, lease, partitionId, runId } = held.assignment
        const { announce, session } = held.binding
        // Whoever does not count the attempt is told of it, and tells whether it may go on.
        return Effect.tapError(
          session.checkpoint({ partitionId, runId, attempt, lease }),
          () => Effect.sync(() => announce(partitionId))
        )
      }).pipe(
        // For as long as the attempt may run: without its lease it is interrupted.
        Effect.retry(Schedule.spaced(repeatPause)),
        Effect.orDie,
        Effect.map(Option.fromNullable)
      )
    }
  }
}

/** Made when the attempt first tells something. */
const notesOf = (held: Held): Notes => held.notes ??= new Notes((isUrgent) => noted(held, isUrgent))

/** There is something to be sent. */
const noted = (held: Held, isUrgent: boolean): void => {
  const { binding } = held
  binding.noted.add(held)
  binding.noteWake.unsafeOpen()
  if (isUrgent) binding.noteDue.open()
}
