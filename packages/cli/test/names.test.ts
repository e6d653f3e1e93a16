import { Command, HelpDoc, ValidationError } from "@effect/cli"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as enqueue from "../src/enqueue.js"
import * as queues from "../src/queues.js"
import * as schedules from "../src/schedules.js"

const orrery = Command.run(
  Command.withSubcommands(Command.make("orrery"), [enqueue.command, queues.command, schedules.command]),
  { name: "orrery", version: "0" }
)

/** Why it was refused; nothing here knows of a cluster, so none was looked for. */
const refusal = (...args: ReadonlyArray<string>) =>
  orrery(["node", "orrery", ...args, "--nodes", "127.0.0.1:1"]).pipe(
    Effect.flip,
    Effect.map((failure) =>
      ValidationError.isValidationError(failure)
        ? HelpDoc.toAnsiText(failure.error)
        : failure instanceof Error
        ? failure.message
        : String(failure)
    ),
    Effect.provide(NodeContext.layer)
  )

const long = "x".repeat(201)
const cron = ["--cron", "@daily", "--task", "work"]
const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string, string]> = [
  [["enqueue", "two words"], "task", "two words"],
  [["enqueue", "work", "--queue", "two words"], "--queue", "\"two words\""],
  [["enqueue", "work", "--queue", long], "--queue", "201 characters"],
  [["queues", "watch", "two words"], "QUEUE", "\"two words\""],
  [["queues", "watch", "work", "--namespace", ""], "--namespace", "\"\""],
  [["queues", "show", long], "QUEUE", "201 characters"],
  [["schedules", "get", "two words"], "name", "\"two words\""],
  [["schedules", "pause", "nightly", "--namespace", "a b"], "--namespace", "\"a b\""],
  [["schedules", "list", "--namespace", "a b"], "--namespace", "\"a b\""],
  [["schedules", "create", "nightly", ...cron, "--queue", "two words"], "--queue", "\"two words\""],
  [["schedules", "create", "two words", ...cron], "name", "\"two words\""],
  [["schedules", "create", "nightly", "--cron", "@daily", "--task", "two words"], "task", "\"two words\""]
]

describe("names of commands", () => {
  it.live.each(cases)(
    "%s: refused by field, limit and value before a connection is made",
    ([args, field, actual]) =>
      Effect.gen(function*() {
        const why = yield* refusal(...args)

        assert.match(why.replace(/\s+/g, " "), new RegExp(`${field} must be .*A-Z.*, got ${actual}`))
      })
  )
})
