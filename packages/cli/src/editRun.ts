/** `orrery runs edit`: changes a run that waits, without the code of its task. */
import { Args, Command, Options } from "@effect/cli"
import { InvalidRequest } from "@orrery/core/Errors"
import type { RunEdit } from "@orrery/core/RunEdit"
import { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import { Console, Effect, Option } from "effect"
import * as Client from "./client.js"
import { parsePayload } from "./enqueue.js"
import * as options from "./options.js"
import { instant } from "./scheduleSpecOptions.js"

const id = Args.text({ name: "id" }).pipe(Args.withSchema(RunId), Args.withDescription("Id of the run."))

interface Flags {
  readonly payload: Option.Option<string>
  readonly payloadVersion: Option.Option<number>
  readonly priority: Option.Option<number>
  readonly delay: Option.Option<number>
  readonly at: Option.Option<number>
}

const editOf = ({ at, delay, payload, payloadVersion, priority }: Flags) =>
  Effect.gen(function*() {
    if (Option.isSome(delay) && Option.isSome(at)) {
      return yield* new InvalidRequest({ field: "--at", limit: "absent with --delay", actual: "both" })
    }
    const text = Option.isNone(payload)
      ? payload
      : Option.some(JSON.stringify(yield* parsePayload(payload.value)))
    const when = Option.orElse(
      Option.map(delay, (ms) => ({ _tag: "delay", ms }) as const),
      () => Option.map(at, (ms) => ({ _tag: "at", ms }) as const)
    )
    return {
      ...options.given("payload", text),
      ...options.given("version", payloadVersion),
      ...options.given("priority", priority),
      ...options.given("when", when)
    } satisfies RunEdit
  })

export const command = Command.make(
  "edit",
  {
    nodes: options.nodes,
    json: options.json,
    id,
    payload: Options.text("payload").pipe(
      Options.withPseudoName("JSON"),
      Options.withDescription(
        "In the form the task's schema encodes to. Checked by the worker, not here, and not encrypted."
      ),
      Options.optional
    ),
    payloadVersion: Options.integer("payload-version").pipe(
      Options.withDescription("Of that payload. Left out: the version that the run has."),
      Options.optional
    ),
    priority: Options.integer("priority").pipe(
      Options.withDescription("0 (most urgent) to 9."),
      Options.optional
    ),
    delay: Options.integer("delay").pipe(
      Options.withPseudoName("MS"),
      Options.withDescription("Start no earlier than this many milliseconds from now; 0: as soon as it can."),
      Options.optional
    ),
    at: instant("at").pipe(Options.withDescription("Start no earlier than then. Not with --delay."), Options.optional)
  },
  ({ id, json, nodes, ...flags }) =>
    Effect.gen(function*() {
      const edit = yield* editOf(flags)
      const edited = yield* Effect.provide(Effect.flatMap(Runs, (runs) => runs.edit(id, edit)), Client.layer(nodes))
      const { priority, scheduledAt, state } = edited
      const text = `${state}  ${new Date(scheduledAt).toISOString()}  priority ${priority}`
      yield* Console.log(json ? JSON.stringify(edited) : text)
    })
).pipe(
  Command.withDescription(
    "Changes payload, priority or time of a run that waits, and prints how it waits now. "
      + "Code 1 where it does not wait any more, naming its state."
  )
)
