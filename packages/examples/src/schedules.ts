/**
 * A schedule declared in code and reconciled as on a deploy: a heartbeat each second, watched for a few seconds. Then an
 * older release declares its own version, and changes nothing.
 *
 *   node --import tsx packages/examples/src/schedules.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, RecurringSchedule, Schedules, Task } from "@orrery/orrery"
import { Console, Effect, Schema } from "effect"

const heartbeat = Task.make("heartbeat", { payload: Schema.Struct({ of: Schema.String }), queue: "heartbeats" })

const handlers = heartbeat.toLayer(({ of }) => Console.log(`${of} is alive`))

const declared = (version: number, cron: string) =>
  RecurringSchedule.make("heartbeat", {
    version,
    task: heartbeat,
    payload: { of: "example" },
    cron,
    policy: { misfire: "skip", overlap: "allowAll" }
  })

const program = Effect.gen(function*() {
  const schedules = yield* Schedules
  const current = declared(2, "* * * * * *")
  yield* RecurringSchedule.reconcile([current])
  yield* Effect.sleep("3500 millis")

  yield* RecurringSchedule.reconcile([declared(1, "@daily")])
  const { definition, state } = yield* schedules.get(current.id)
  yield* Console.log(`version ${definition.version} stays; ${state.fires} runs so far`)
  for (const tick of yield* schedules.ticks(current.id, 10)) {
    yield* Console.log(`${new Date(tick.first).toISOString()} ${tick.outcome}`)
  }
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
