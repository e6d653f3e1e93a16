/**
 * A queue that is paused, resumed and limited while it works.
 *
 *   node --import tsx packages/examples/src/control.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, Queue, Queues, Task } from "@orrery/orrery"
import { Console, Effect, Schema } from "effect"

const mail = Task.make("mail", {
  payload: Schema.Struct({ customer: Schema.String, n: Schema.Number }),
  queue: "mail",
  fairnessKey: ({ customer }) => customer
})

/** By the code: at most four at once. A higher version replaces it; a stale deploy changes nothing. */
const declared = Queue.make("mail", { version: 1, concurrency: 4 })

let running = 0
let most = 0
const sent: Array<string> = []

const handlers = mail.toLayer(({ customer }) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      running += 1
      most = Math.max(most, running)
    }),
    () => Effect.sleep("20 millis"),
    () =>
      Effect.sync(() => {
        running -= 1
        sent.push(customer)
      })
  )
)

const program = Effect.gen(function*() {
  const queues = yield* Queues
  const of = { namespace: "default", queue: "mail", by: "ann" }
  const many = (customer: string) => Array.from({ length: 20 }, (_, n) => ({ customer, n }))
  yield* Queue.reconcile([declared])

  yield* queues.call({ _tag: "pause", ...of, why: "the relay is down" })
  const ids = yield* mail.enqueueMany([...many("acme"), ...many("globex")])
  yield* Effect.sleep("200 millis")
  yield* Console.log(`paused: ${sent.length} sent`)

  // Everybody but acme; and by now two at once are enough.
  const key = { kind: "fairness", key: "acme" } as const
  yield* queues.call({ _tag: "pause", ...of, why: "they asked us to", key })
  yield* queues.call({ _tag: "setLimits", ...of, limits: { concurrency: 2 } })
  const { revision } = yield* queues.call({ _tag: "resume", ...of })
  yield* Effect.forEach(ids.slice(20), mail.result, { concurrency: 10 })
  yield* Console.log(`revision ${revision}: ${sent.length} sent, ${new Set(sent).size} customer, ${most} at once`)

  yield* queues.call({ _tag: "resume", ...of, key })
  yield* queues.call({ _tag: "resetLimits", ...of })
  yield* Effect.forEach(ids, mail.result, { concurrency: 10 })
  yield* Console.log(`all: ${sent.length} sent, ${most} at once`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
