/**
 * How long the runs of a queue are kept once they have ended, by how they ended: said with the code, changed at run time; and what is
 * left when days have passed.
 *
 *   node --import tsx packages/examples/src/retention.ts
 */
import { Orrery, Queue, Queues, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { OrreryTest } from "@orrery/testing"
import { Console, Effect, Schema, TestContext } from "effect"

const report = Task.make("report", {
  payload: Schema.Struct({ day: Schema.Number }),
  queue: "reports",
  retry: RetryPolicy.fixed({ maxAttempts: 1, delay: 1 })
})

/** Reports are read on the day they are made; those that failed are somebody's work. */
const reports = Queue.make("reports", { version: 1, retention: { succeeded: "1 day", failed: "90 days" } })

const handlers = report.toLayer(({ day }) => day > 0 ? Effect.void : Effect.dieMessage("no such day"))

const said = Effect.gen(function*() {
  const queues = yield* Queues
  const of = { namespace: "default", queue: "reports", by: "ann" }
  yield* Queue.reconcile([reports])
  yield* queues.call({ _tag: "setRetention", ...of, retention: { failed: "forever" } })
  const { revision, settings } = yield* queues.call({ _tag: "setRetention", ...of, retention: { expired: "7 days" } })
  yield* Console.log(
    `revision ${revision}: ${JSON.stringify({ ...settings.declared?.retention, ...settings.retention })}`
  )
  const wrong = { _tag: "setRetention", ...of, retention: { failed: "2 weeks" as "7 days" } } as const
  yield* Console.log((yield* Effect.flip(queues.call(wrong))).message)
})

/** Days pass by the clock of a test. */
const passed = Effect.gen(function*() {
  const test = yield* OrreryTest
  const runs = yield* Runs
  const ids = yield* report.enqueueMany([{ day: 1 }, { day: 0 }])
  yield* test.drain
  for (const days of [0, 2, 100]) {
    yield* test.advance(`${days} days`)
    const states = yield* Effect.forEach(
      ids,
      (id) =>
        runs.get(id).pipe(
          Effect.map(({ state }) => state as string),
          Effect.catchAll(({ _tag }) => Effect.succeed(_tag))
        )
    )
    yield* Console.log(`after ${days} more days: ${states.join(", ")}`)
  }
})

const program = Effect.zipRight(
  Effect.provide(said, Orrery.layerMemory({ handlers })),
  passed.pipe(
    Effect.provide(OrreryTest.layer({ handlers, retention: { succeeded: "1 day", failed: "90 days" } })),
    Effect.provide(TestContext.TestContext)
  )
)

void Effect.runPromise(program)
