/** The `orrery` command, apart from the process it runs in: that is `main.ts`. */
import { Command, ValidationError } from "@effect/cli"
import { Cause, Exit, Option } from "effect"
import { exitCode, ofFailure } from "./ExitCode.js"
import * as chaos from "./chaos.js"
import * as deadLetters from "./deadLetters.js"
import * as enqueue from "./enqueue.js"
import * as migrate from "./migrate.js"
import * as node from "./node.js"
import * as nodes from "./nodes.js"
import * as queues from "./queues.js"
import * as runs from "./runs.js"
import * as schedules from "./schedules.js"
import * as up from "./up.js"
import * as worker from "./worker.js"

/** Of a shell's command that was interrupted. */
const interruptedCode = 130

const orrery = Command.make("orrery").pipe(
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

/** Of a process with these arguments; the first two are not looked at, as in `process.argv`. Prints by `Console`. */
export const run = Command.run(orrery, { name: "orrery", version: "0.1.0" })

/** For standard error: one problem a line; arguments were explained by the parser already, defects get their stack. */
export const explain = (cause: Cause.Cause<unknown>): string => {
  const failure = Option.getOrUndefined(Cause.failureOption(cause))
  if (ValidationError.isValidationError(failure)) return ""
  if (typeof failure === "object" && failure !== null && "problems" in failure && Array.isArray(failure.problems)) {
    return ["orrery: wrong configuration", ...failure.problems.map((problem) => `  ${problem}`), ""].join("\n")
  }
  return `orrery: ${failure instanceof Error ? failure.message : Cause.pretty(cause)}\n`
}

/** `interrupted`: of one that ended because it was told to. */
export const codeOf = (exit: Exit.Exit<unknown, unknown>, interrupted: number = interruptedCode): number => {
  if (Exit.isSuccess(exit)) return exitCode.ok
  if (Cause.isInterruptedOnly(exit.cause)) return interrupted
  return ofFailure(Option.getOrUndefined(Cause.failureOption(exit.cause)))
}
