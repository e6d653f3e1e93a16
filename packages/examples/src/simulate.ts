/**
 * Your own task in the simulator: an account that is charged once per order, whatever dies. The handler guards its side
 * effect with the key that all attempts of a run share; take the guard out, and some order is charged more than once.
 *
 *   node --import tsx packages/examples/src/simulate.ts
 */
import { Attempt, RetryPolicy, Task } from "@orrery/orrery"
import { explore, told } from "@orrery/testing/simulation/explore"
import * as Simulation from "@orrery/testing/simulation/Simulation"
import { Console, Effect, Schema } from "effect"

const charge = Task.make("charge", {
  payload: Schema.Struct({ cents: Schema.Number }),
  queue: "payments",
  retry: RetryPolicy.fixed({ maxAttempts: 20, delay: 100 })
})

/** The payment provider: how often each order was charged. */
const charges = new Map<string, number>()

const handlers = charge.toLayer(() =>
  Effect.gen(function*() {
    const { idempotencyKey } = yield* Attempt
    yield* Effect.sleep("200 millis")
    if (charges.has(idempotencyKey)) return
    charges.set(idempotencyKey, (charges.get(idempotencyKey) ?? 0) + 1)
    yield* Effect.sleep("200 millis")
  })
)

const seeds = 200

const program = Effect.gen(function*() {
  const tasks = [Simulation.task(charge, (random) => ({ cents: random.integer(1, 10_000) }))]
  const { failure, histories, runs } = explore({ from: 1, count: seeds }, { handlers, tasks })
  if (failure !== undefined) return yield* Console.log(told(failure))
  const most = Math.max(...charges.values())
  yield* Console.log(`${histories} histories, ${runs} orders; none was charged more often than ${most} times`)
})

Effect.runSync(program)
