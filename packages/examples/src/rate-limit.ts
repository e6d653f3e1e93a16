/**
 * One limit for two queues: however many runs wait, the partner's API is called at most five times in any half second.
 *
 *   node --import tsx packages/examples/src/rate-limit.ts
 *
 * With ORRERY_REDIS_URL the same limit holds for all processes that name it.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, RateLimiter, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

const partnerApi = RateLimiter.make("partner-api", { limit: 5, per: "500 millis" })

const order = Task.make("order", { payload: Schema.Struct({ n: Schema.Number }), queue: "orders" })
const refund = Task.make("refund", { payload: Schema.Struct({ n: Schema.Number }), queue: "refunds" })

const began = performance.now()
const call = (what: string) =>
  Effect.zipRight(
    partnerApi.take(),
    Effect.suspend(() => Console.log(`${((performance.now() - began) / 1_000).toFixed(2)} s  ${what}`))
  )

const handlers = Layer.mergeAll(
  order.toLayer(({ n }) => Effect.orDie(call(`order ${n}`))),
  refund.toLayer(({ n }) => Effect.orDie(call(`refund ${n}`)))
)

const program = Effect.gen(function*() {
  const payloads = Array.from({ length: 8 }, (_, n) => ({ n }))
  const orders = yield* order.enqueueMany(payloads)
  const refunds = yield* refund.enqueueMany(payloads)
  yield* Effect.forEach(orders, order.result, { concurrency: 8 })
  yield* Effect.forEach(refunds, refund.result, { concurrency: 8 })
})

const orrery = Orrery.layerMemory({ handlers }).pipe(Layer.provide(Orrery.layerRedisConfig))

NodeRuntime.runMain(Effect.provide(program, orrery))
