/**
 * A payload that has changed, and one that nobody but this program can read. A run that the release before has asked for is
 * executed by this one; what the cluster holds of it is encrypted.
 *
 *   node --import tsx packages/examples/src/payloads.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, PayloadCodec, Task } from "@orrery/orrery"
import { Console, Effect, Redacted, Schema } from "effect"
import { randomBytes } from "node:crypto"

const V1 = Schema.Struct({ cents: Schema.Int })
const V2 = Schema.Struct({ cents: Schema.Int, currency: Schema.String })

/** As the release before had it. */
const before = Task.make("charge", { payload: V1, success: Schema.String })

const charge = Task.make("charge", {
  payload: Task.versions(V1).next(V2, (v1) => ({ ...v1, currency: "EUR" })),
  success: Schema.String
})

const handlers = charge.toLayer(({ cents, currency }) => Effect.succeed(`${cents / 100} ${currency}`))

// An application reads its keys from its secrets: PayloadCodec.config.
const codec = PayloadCodec.make({
  compressFrom: 4_096,
  encrypt: { key: "2026-11", keys: { "2026-11": Redacted.make(randomBytes(32).toString("base64")) } }
})

const program = Effect.gen(function*() {
  yield* Console.log(`asked for by the release before: ${yield* before.execute({ cents: 500 })}`)
  yield* Console.log(`asked for by this one: ${yield* charge.execute({ cents: 700, currency: "USD" })}`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers, codec })))
