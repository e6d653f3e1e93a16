/**
 * Limits of starts that several queues share: runs wait in line for them, not in handlers, and take no slot meanwhile.
 *
 *   node --import tsx packages/examples/src/spanning-limits.ts
 *
 * In a cluster they hold over all nodes: kept by limiter actors, or by Redis where ORRERY_REDIS_URL names one.
 */
import { NodeRuntime } from "@effect/platform-node"
import { ConcurrencyLimiter, Orrery, Queue, RateLimiter, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

/** A use costs as many tokens as it sends lines. */
const partnerApi = RateLimiter.make<{ readonly lines: number }>("partner-api", {
  limit: 10,
  per: "500 millis",
  cost: ({ lines }) => lines
})
const gpu = ConcurrencyLimiter.make("gpu", { limit: 2 })

const Payload = Schema.Struct({ n: Schema.Number, lines: Schema.Number })
const order = Task.make("order", { payload: Payload, queue: "orders", limiters: partnerApi })
const refund = Task.make("refund", { payload: Payload, queue: "refunds", limiters: partnerApi })
const render = Task.make("render", { payload: Payload, queue: "images", limiters: gpu })
/** Of a queue: for all its tasks, whatever they say. */
const previews = Queue.make("previews", { version: 1, limiters: gpu })
const preview = Task.make("preview", { payload: Payload, queue: "previews" })

const began = performance.now()
const calls: Array<{ readonly at: number; readonly lines: number }> = []
const call = ({ lines }: { readonly lines: number }) =>
  Effect.sync(() => void calls.push({ at: performance.now() - began, lines }))

let running = 0
let most = 0
const draw = Effect.acquireUseRelease(
  Effect.sync(() => most = Math.max(most, ++running)),
  () => Effect.sleep("50 millis"),
  () => Effect.sync(() => running--)
)

const handlers = Layer.mergeAll(
  order.toLayer(call),
  refund.toLayer(call),
  render.toLayer(() => draw),
  preview.toLayer(() => draw)
)

/** Lines sent in the half second that sent most. */
const mostLines = () =>
  Math.max(
    ...calls.map(({ at }) =>
      calls.filter((other) => other.at >= at && other.at < at + 490).reduce((sum, { lines }) => sum + lines, 0)
    )
  )

const program = Effect.gen(function*() {
  const payloads = Array.from({ length: 10 }, (_, n) => ({ n, lines: 1 + n % 3 }))
  yield* Queue.reconcile([previews])
  const ids = {
    orders: yield* order.enqueueMany(payloads),
    refunds: yield* refund.enqueueMany(payloads),
    renders: yield* render.enqueueMany(payloads),
    previews: yield* preview.enqueueMany(payloads)
  }
  // Between two windows it may wait for nothing but the runs before it.
  const last = yield* refund.explain(ids.refunds[9]!).pipe(
    Effect.delay("20 millis"),
    Effect.repeat({ until: ({ reason }) => reason._tag === "RateLimited", times: 100 })
  )
  const { limit } = last.reason as { readonly limit?: { readonly name: string } }
  yield* Console.log(`a refund waits: ${last.reason._tag} ${limit?.name}`)
  yield* Effect.forEach(ids.orders, order.result, { concurrency: 10 })
  yield* Effect.forEach(ids.refunds, refund.result, { concurrency: 10 })
  yield* Effect.forEach(ids.renders, render.result, { concurrency: 10 })
  yield* Effect.forEach(ids.previews, preview.result, { concurrency: 10 })

  yield* Console.log(`${calls.length} calls, at most ${mostLines()} lines in any half second`)
  yield* Console.log(`at most ${most} renders and previews at once`)
})

NodeRuntime.runMain(
  Effect.provide(program, Orrery.layerMemory({ handlers }).pipe(Layer.provide(Orrery.layerRedisConfig)))
)
