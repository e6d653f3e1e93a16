/**
 * Limits, order and fair turns of one queue, by functions of the payload.
 *
 *   node --import tsx packages/examples/src/limits.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

const Payload = Schema.Struct({ tenant: Schema.String, n: Schema.Number })

/** At most two of a tenant at once, five over all tenants; tenants take turns, however much one of them asks for. */
const render = Task.make("render", {
  payload: Payload,
  queue: "media",
  concurrency: [
    { name: "tenant", key: ({ tenant }) => tenant, limit: 2 },
    { name: "gpu", limit: 5 }
  ],
  fairnessKey: ({ tenant }) => tenant
})

/** One after the other, in the order in which they were enqueued: of each tenant. */
const bill = Task.make("bill", { payload: Payload, queue: "billing", orderingKey: ({ tenant }) => tenant })

/** Ten in any second. */
const mail = Task.make("mail", { payload: Payload, queue: "mail", rateLimit: { limit: 10, per: "1 second" } })

const running = new Map<string, number>()
const most = new Map<string, number>()
const billed: Array<string> = []
let began = 0
let lastMail = 0

const handlers = Layer.mergeAll(
  render.toLayer(({ tenant }) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        for (const key of [tenant, "gpu"]) {
          running.set(key, (running.get(key) ?? 0) + 1)
          most.set(key, Math.max(most.get(key) ?? 0, running.get(key)!))
        }
      }),
      () => Effect.sleep("20 millis"),
      () =>
        Effect.sync(() => {
          for (const key of [tenant, "gpu"]) running.set(key, running.get(key)! - 1)
        })
    )
  ),
  bill.toLayer(({ n, tenant }) => Effect.sync(() => void billed.push(`${tenant}${n}`))),
  mail.toLayer(() =>
    Effect.sync(() => {
      lastMail = performance.now() - began
    })
  )
)

const program = Effect.gen(function*() {
  began = performance.now()
  const many = (count: number) =>
    Array.from({ length: count }, (_, n) => ({ tenant: n % 10 === 0 ? "small" : "big", n }))
  const renders = yield* render.enqueueMany(many(60))
  const bills = yield* bill.enqueueMany(many(20))
  const mails = yield* mail.enqueueMany(many(25))
  yield* Effect.forEach(renders, render.result, { concurrency: 10 })
  yield* Effect.forEach(bills, bill.result, { concurrency: 10 })
  yield* Effect.forEach(mails, mail.result, { concurrency: 10 })

  yield* Console.log(`rendered at once: ${[...most].map(([key, count]) => `${key} ${count}`).join(", ")}`)
  yield* Console.log(`billed: ${billed.filter((each) => each.startsWith("big")).join(" ")}`)
  yield* Console.log(`the 25th mail began after ${(lastMail / 1_000).toFixed(1)} s`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
