/** Tasks that do what handlers do: end at once, take their time, fail and try again, fail for good, throw, run too long. */
import { Attempt } from "@orrery/core/Handlers"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import * as Task from "@orrery/core/Task"
import { Effect, Layer, Schema } from "effect"
import type { Random } from "../Random.js"
import * as Simulation from "./Simulation.js"

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

const heavy = Task.make("heavy", { payload: Work, error: Schema.String, queue: "first", retry, slots: 3 })
const middling = Task.make("middling", {
  payload: Work,
  error: Schema.String,
  queue: "second",
  retry,
  slots: 2,
  timeout: "1500 millis"
})

const work = ({ failures, ms, throws }: typeof Work.Type) =>
  Effect.gen(function*() {
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
    lined.toLayer(work)
  ),
  tasks: [quick, brief, bounded, once, narrow, lined].map((each) => Simulation.task(each, payload))
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
  tasks: [quick, once, lined, heavy, middling].map((each) => Simulation.task(each, payload))
}
