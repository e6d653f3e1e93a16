/** Tasks that do what handlers do: end at once, take their time, fail and try again, fail for good, throw, run too long. */
import { Attempt } from "@orrery/core/Handlers"
import * as RecurringSchedule from "@orrery/core/schedule/RecurringSchedule"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import * as Task from "@orrery/core/Task"
import type { TaskAttempt } from "@orrery/core/TaskAttempt"
import { Effect, Layer, Option, Schema } from "effect"
import type { Random } from "../Random.js"
import { activeMs } from "./Plan.js"
import * as Simulation from "./Simulation.js"
import { epochMs } from "./World.js"

const Work = Schema.Struct({
  /** How long it takes, ms. */
  ms: Schema.Number,
  /** So many attempts fail first. */
  failures: Schema.Number,
  /** As that attempt does at its end. */
  throws: Schema.Boolean,
  /** Of few. */
  key: Schema.String
})

const retry = RetryPolicy.fixed({ maxAttempts: 12, delay: 100, jitter: 0.5 })

const quick = Task.make("quick", { payload: Work, error: Schema.String, queue: "first", retry })
const brief = Task.make("brief", { payload: Work, error: Schema.String, queue: "first", retry })
const bounded = Task.make("bounded", {
  payload: Work,
  error: Schema.String,
  queue: "second",
  retry,
  timeout: "1500 millis"
})
const once = Task.make("once", {
  payload: Work,
  error: Schema.String,
  queue: "second",
  retry: RetryPolicy.fixed({ maxAttempts: 1, delay: 100, jitter: 0 })
})

const narrow = Task.make("narrow", {
  payload: Work,
  error: Schema.String,
  queue: "first",
  retry,
  concurrency: [{ key: ({ key }) => key, limit: 1 }, { name: "all", limit: 2 }],
  fairnessKey: ({ key }) => key
})
const lined = Task.make("lined", {
  payload: Work,
  error: Schema.String,
  queue: "second",
  retry,
  orderingKey: ({ key }) => key
})

const stepped = Task.make("stepped", {
  payload: Work,
  error: Schema.String,
  queue: "first",
  retry,
  checkpoint: Schema.Number
})

const beat = Task.make("beat", { payload: Schema.Struct({}), queue: "second", retry })
const beatMs = 1_500
/** A little after the last fault has begun; no instant of the schedule. */
const beatsUntil = epochMs + activeMs + 800
const beating = RecurringSchedule.make("beating", {
  version: 1,
  task: beat,
  payload: {},
  every: beatMs,
  end: new Date(beatsUntil),
  policy: { misfire: "fireAll", overlap: "allowAll" }
})

const steps = 3
/** Goes on where the last attempt stopped. One that is to fail does so after a step. */
const inSteps = Effect.fnUntraced(
  function*({ failures, ms, throws }: typeof Work.Type, attempt: TaskAttempt<number, number>) {
    for (let step = Option.getOrElse(attempt.checkpoint, () => 0) + 1; step <= steps; step++) {
      if (ms > 0) yield* Effect.sleep(ms / steps)
      yield* attempt.progress(step / steps * 100)
      yield* attempt.saveCheckpoint(step)
      if (attempt.attempt > failures) continue
      return yield* throws ? Effect.dieMessage("thrown") : Effect.fail("not yet")
    }
  }
)

const heavy = Task.make("heavy", { payload: Work, error: Schema.String, queue: "first", retry, slots: 3 })
const middling = Task.make("middling", {
  payload: Work,
  error: Schema.String,
  queue: "second",
  retry,
  slots: 2,
  timeout: "1500 millis"
})

const work = Effect.fnUntraced(function*({ failures, ms, throws }: typeof Work.Type) {
  const { attempt } = yield* Attempt
  if (ms > 0) yield* Effect.sleep(ms)
  if (attempt > failures) return
  return yield* throws ? Effect.dieMessage("thrown") : Effect.fail("not yet")
})

const payload = (random: Random): typeof Work.Type => ({
  ms: random.chance(0.4) ? 0 : random.pick([1, 30, 300, 2_500]) * random.next(),
  failures: random.chance(0.2) ? random.integer(1, 3) : 0,
  throws: random.chance(0.3),
  key: random.pick(["red", "blue"])
})

export const options: Simulation.Options = {
  handlers: Layer.mergeAll(
    quick.toLayer(work),
    brief.toLayer(work),
    bounded.toLayer(work),
    once.toLayer(work),
    narrow.toLayer(work),
    lined.toLayer(work),
    stepped.toLayer(inSteps),
    beat.toLayer(() => Effect.void)
  ),
  handlersHoldNothing: true,
  schedules: [{ definition: Effect.runSync(beating.definition), everyMs: beatMs, end: beatsUntil }],
  tasks: [quick, brief, bounded, once, narrow, lined, stepped].map((each) => Simulation.task(each, payload))
}

/** Runs that take several slots among those that take one. */
export const costly: Simulation.Options = {
  handlers: Layer.mergeAll(
    quick.toLayer(work),
    once.toLayer(work),
    lined.toLayer(work),
    heavy.toLayer(work),
    middling.toLayer(work)
  ),
  handlersHoldNothing: true,
  tasks: [quick, once, lined, heavy, middling].map((each) => Simulation.task(each, payload))
}
