/**
 * Two tasks as an application has them: a charge that is retried, and a reminder a day after it. How they are tested:
 * `packages/examples/test/orders.test.ts`, and docs/testing.md.
 */
import { RetryPolicy, Task } from "@orrery/orrery"
import { Context, Effect, Layer, Schema } from "effect"

export class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", { code: Schema.String }) {}

const Order = Schema.Struct({ order: Schema.String, cents: Schema.Int })

export const charge = Task.make("charge", {
  payload: Order,
  success: Schema.Struct({ receipt: Schema.String }),
  error: CardDeclined,
  queue: "payments",
  retry: RetryPolicy.fixed({ maxAttempts: 3, delay: 60_000, jitter: 0 })
})

export const remind = Task.make("remind", { payload: Schema.Struct({ order: Schema.String }), queue: "mail" })

/** What takes the money. `key`: a charge that comes again with it is not made again. */
export class Bank extends Context.Tag("examples/Bank")<Bank, {
  readonly take: (cents: number, key: string) => Effect.Effect<string, CardDeclined>
}>() {}

export const handlers = Layer.mergeAll(
  charge.toLayer(({ cents, order }) =>
    Effect.gen(function*() {
      const bank = yield* Bank
      const receipt = yield* bank.take(cents, order)
      yield* remind.enqueue({ order }, { delay: "1 day" }).pipe(Effect.orDie)
      return { receipt }
    })
  ),
  remind.toLayer(({ order }) => Effect.logInfo(`how was ${order}?`))
)
