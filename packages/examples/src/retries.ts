/**
 * Retries by the kind of error, what a handler may say with a failure, times of runs, and dead letters made anew.
 *
 *   node --import tsx packages/examples/src/retries.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Attempt, DeadLetters, Orrery, Retry, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Console, Effect, Schema } from "effect"

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {}) {}
class Down extends Schema.TaggedError<Down>()("Down", {}) {}
class Rejected extends Schema.TaggedError<Rejected>()("Rejected", {}) {}

/** A tag that no error of the task has does not compile. */
const charge = Task.make("charge", {
  payload: Schema.String,
  success: Schema.String,
  error: Schema.Union(RateLimited, Down, Rejected),
  retry: {
    default: RetryPolicy.fixed({ maxAttempts: 2, delay: "20 millis" }),
    byTag: { RateLimited: RetryPolicy.fixed({ maxAttempts: 10, delay: "20 millis" }), Rejected: "never" }
  },
  retryBudget: { retries: 100, per: "1 second" },
  deadline: "1 minute"
})

/** In line for 100 ms at most; nobody here executes it. */
const offer = Task.make("offer", { payload: Schema.Void, queue: "nobody", queueTtl: "100 millis" })

let isDown = true
const answers: Record<
  string,
  (attempt: number) => Effect.Effect<string, Retry.Failing<RateLimited | Down | Rejected>>
> = {
  busy: (attempt) => attempt < 3 ? Retry.after("50 millis", new RateLimited()) : Effect.succeed("charged"),
  stolen: () => new Rejected(),
  down: () => isDown ? new Down() : Effect.succeed("charged")
}
let looks = 0
answers["pending"] = () =>
  (looks += 1) < 3 ? Retry.snooze("100 millis") : Effect.succeed(`charged after ${looks} looks`)

const handlers = charge.toLayer((card) => Effect.flatMap(Attempt, ({ attempt }) => answers[card]!(attempt)))

const program = Effect.gen(function*() {
  const runs = yield* Runs
  const ids = yield* charge.enqueueMany(["busy", "stolen", "pending", "down"])
  const expiring = yield* offer.enqueue()
  for (const id of [...ids, expiring]) {
    const { attempt, failure, payload, result, state } = yield* runs.awaitFinal(id)
    const why = failure === null ? result : failure.tag
    yield* Console.log(`${payload}: ${state} in ${attempt} attempts, ${why}`)
  }

  isDown = false
  const [group] = yield* DeadLetters.groups({ tag: "Down" }, 1_000)
  const report = yield* DeadLetters.redrive({ filter: { fingerprint: group!.fingerprint }, canary: 1 })
  yield* Console.log(`redriven ${report.redriven} of ${report.matched}, succeeded ${report.succeeded}`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
