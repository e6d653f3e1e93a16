/** The `orrery` command, apart from the process it runs in: that is `main.ts`. */
import { Command } from "@effect/cli"
import { Cause, Option } from "effect"
import * as chaos from "./chaos.js"
import * as deadLetters from "./deadLetters.js"
import * as enqueue from "./enqueue.js"
import * as migrate from "./migrate.js"
import * as node from "./node.js"
import * as nodes from "./nodes.js"
import * as queues from "./queues.js"
import { messageOf } from "./runCommand.js"
import * as runs from "./runs.js"
import * as schedules from "./schedules.js"
import * as up from "./up.js"
import * as worker from "./worker.js"

export const command = Command.make("orrery").pipe(
  Command.withDescription(
    "A distributed task scheduler. Start with `orrery up`. "
      + "Exit codes: 0 done; 1 wrong arguments or configuration, refused, or the run did not succeed; "
      + "69 database or cluster not reachable; 70 a defect of Orrery; 75 the node must be started anew; 130 interrupted."
  ),
  Command.withSubcommands([
    up.command,
    node.command,
    worker.command,
    nodes.command,
    migrate.command,
    enqueue.command,
    runs.command,
    deadLetters.command,
    queues.command,
    schedules.command,
    chaos.command
  ])
)

/** One problem a line; defects get their stack. */
export const explain = (cause: Cause.Cause<unknown>): string => {
  const failure = Option.getOrUndefined(Cause.failureOption(cause))
  if (typeof failure === "object" && failure !== null && "problems" in failure && Array.isArray(failure.problems)) {
    return ["orrery: wrong configuration", ...failure.problems.map((problem) => `  ${problem}`), ""].join("\n")
  }
  return `orrery: ${messageOf(cause)}`
}
