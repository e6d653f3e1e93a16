/** What runs under fire. Queues are many, so that every node owns some. */
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import * as Task from "@orrery/core/Task"
import { Schema } from "effect"

const queuesCount = 12
export const queues: ReadonlyArray<string> = Array.from({ length: queuesCount }, (_, n) => `chaos-${n}`)

/** Many attempts, so that only a bug or a poison run ends as failed. */
const patient = RetryPolicy.fixed({ maxAttempts: 20, delay: 150, jitter: 0 })

const StepPayload = Schema.Struct({
  /** How long it takes. */
  ms: Schema.Number,
  /** Attempts that fail before one succeeds. */
  failures: Schema.Number
})

export class StepFailed extends Schema.TaggedError<StepFailed>("@orrery/chaos/StepFailed")("StepFailed", {
  attempt: Schema.Number
}) {}

/** The load. One task per queue. */
export const steps = queues.map((queue) =>
  Task.make(`step-${queue}`, {
    payload: StepPayload,
    success: Schema.Number,
    error: StepFailed,
    queue,
    retry: patient
  })
)

const Millis = Schema.Struct({ ms: Schema.Number })

const beatQueues: ReadonlyArray<string> = ["beat-0", "beat-1", "beat-2"]

/** What schedules enqueue, each its own. */
export const beats = beatQueues.map((queue) =>
  Task.make(queue, { payload: Schema.Struct({}), success: Schema.Void, queue, retry: patient })
)

/** Takes `ms`; interruptible. In workers only. */
export const nap = Task.make("nap", { payload: Millis, success: Schema.Void, queue: "chaos-naps", retry: patient })

/** Stops the event loop of the node it runs in, the first time. In nodes only. */
export const block = Task.make("block", {
  payload: Millis,
  success: Schema.Void,
  queue: "chaos-blocks",
  retry: patient
})

/** Known only to workers of a later release. */
export const newer = Task.make("newer", { payload: Millis, success: Schema.Void, queue: "chaos-newer", retry: patient })

/** Takes any payload. */
export const swallow = Task.make("swallow", {
  payload: Schema.Unknown,
  success: Schema.Void,
  queue: "chaos-payloads",
  retry: patient
})

export const poisons = [
  "throws",
  "throwsString",
  "fails",
  "exits",
  "overflows",
  "returnsCircle",
  "neverEnds",
  "blocksWorker",
  "eatsMemory"
] as const
export type Poison = typeof poisons[number]

/** What no handler should do. In workers only. */
export const poison = Task.make("poison", {
  payload: Schema.Struct({ kind: Schema.Literal(...poisons) }),
  success: Schema.Unknown,
  error: StepFailed,
  queue: "chaos-poison",
  timeout: "2 seconds",
  retry: RetryPolicy.fixed({ maxAttempts: 2, delay: 100, jitter: 0 })
})
