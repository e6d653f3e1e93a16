/** `orrery enqueue`: makes runs without the code of the task. */
import { Args, Command, Options } from "@effect/cli"
import type { InvalidRequest } from "@orrery/core/Errors"
import * as Task from "@orrery/core/Task"
import type { RunId } from "@orrery/core/RunId"
import { Console, Data, Duration, Effect, Option, Schema } from "effect"
import * as Client from "./client.js"
import * as options from "./options.js"

/** Runs of one call; `--count` above it takes several. */
const chunk = 1_000
const countMax = 1_000_000

class PayloadNotJson extends Data.TaggedError("PayloadNotJson")<{ readonly reason: string }> {
  override get message() {
    return `--payload is not JSON: ${this.reason}`
  }
}

const task = Args.text({ name: "task" }).pipe(Args.withDescription("Name of the task."))
const payload = Options.text("payload").pipe(
  Options.withPseudoName("JSON"),
  Options.withDescription(
    "Payload, in the form the task's schema encodes to. Checked by the worker, not here. Default: null."
  ),
  Options.withDefault("null")
)
const queue = options.named("queue").pipe(
  Options.withDescription("Queue of the run. Give the one the task is defined with. Default: default."),
  Options.withDefault("default")
)
const delay = Options.integer("delay").pipe(
  Options.withPseudoName("MS"),
  Options.withDescription("Start no earlier than this many milliseconds from now."),
  Options.withDefault(0)
)
const priority = Options.integer("priority").pipe(
  Options.withDescription("0 (most urgent) to 9. Default: 5."),
  Options.optional
)
const count = Options.integer("count").pipe(
  Options.withDescription(`How many equal runs to make, 1 to ${countMax}. Default: 1.`),
  Options.withSchema(Schema.Int.pipe(Schema.between(1, countMax))),
  Options.withDefault(1)
)

const idempotencyKey = Options.text("idempotency-key").pipe(
  Options.withPseudoName("KEY"),
  Options.withDescription(
    "Print the id of the run that was made with this key and task within a day, if there is one, instead of making another. "
      + "Not with --count."
  ),
  Options.optional
)

class KeyOfMany extends Data.TaggedError("KeyOfMany")<{ readonly count: number }> {
  override get message() {
    return `--count must be 1 with --idempotency-key, got ${this.count}`
  }
}

/** Default retry policy, no timeout: those of the task's definition are not known here. */
const define = (name: string, inQueue: string) =>
  Effect.try({
    try: () => Task.make(name, { payload: Schema.Unknown, queue: inQueue }),
    // `Task.make` throws `InvalidRequest`, which names the field.
    catch: (problem) => problem as InvalidRequest
  })

export const parsePayload = (text: string): Effect.Effect<unknown, PayloadNotJson> =>
  Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => new PayloadNotJson({ reason: cause instanceof Error ? cause.message : String(cause) })
  })

export const command = Command.make(
  "enqueue",
  { task, payload, queue, delay, priority, count, idempotencyKey, nodes: options.nodes, json: options.json },
  (flags) =>
    Effect.gen(function*() {
      const key = Option.getOrUndefined(flags.idempotencyKey)
      if (key !== undefined && flags.count !== 1) return yield* new KeyOfMany({ count: flags.count })
      const value = yield* parsePayload(flags.payload)
      const defined = yield* define(flags.task, flags.queue)
      const enqueue = {
        ...(flags.delay === 0 ? {} : { delay: Duration.millis(flags.delay) }),
        ...(Option.isSome(flags.priority) ? { priority: flags.priority.value } : {})
      }
      yield* Effect.gen(function*() {
        if (key !== undefined) {
          const { id, isNew } = yield* defined.enqueueDetailed(value, { ...enqueue, idempotencyKey: key })
          return yield* Console.log(flags.json ? JSON.stringify({ id, isNew }) : id)
        }
        for (let done = 0; done < flags.count; done += chunk) {
          const payloads = Array.from({ length: Math.min(chunk, flags.count - done) }, () => value)
          const ids: ReadonlyArray<RunId> = yield* defined.enqueueMany(payloads, enqueue)
          yield* Console.log(ids.map((id) => flags.json ? JSON.stringify({ id }) : id).join("\n"))
        }
      }).pipe(Effect.provide(Client.layer(flags.nodes)))
    })
).pipe(
  Command.withDescription(
    "Make runs of a task and print their ids, one a line. An id is printed only after its run is durable. "
      + "Retries follow the default policy (5 attempts, 1 s doubling to 5 min) and there is no timeout."
  )
)
