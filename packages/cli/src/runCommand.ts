/** A command line as the program of a process: results on standard output, all else on standard error, an exit code. */
import { type CliApp, Command, ValidationError } from "@effect/cli"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Cause, Effect, Exit, Layer, Logger, Option } from "effect"
import { exitCode } from "./ExitCode.js"

/** Of a shell's command that was interrupted. */
const interruptedCode = 130

export interface RunCommandOptions {
  readonly name: string
  /** Of a failure; `undefined` stands for a defect. Default: `exitCode.usage`. */
  readonly codeOf?: (failure: unknown) => number
  /** What a failure says, whole lines. Default: its message, or a defect's stack. */
  readonly explain?: (cause: Cause.Cause<unknown>) => string
  /** Ends the process after a success. Default: as node does, when nothing is open any more. */
  readonly exit?: (code: number) => void
}

/** Arguments that the parser refused were explained by it. Interrupted: 130, or the exit code that was set meanwhile. */
export const runCommand = <Name extends string, E, A>(
  command: Command.Command<Name, CliApp.CliApp.Environment, E, A>,
  { codeOf = () => exitCode.usage, exit, explain = messageOf, name }: RunCommandOptions
): void => {
  const say = (cause: Cause.Cause<unknown>): void => {
    if (!ValidationError.isValidationError(failureOf(cause))) process.stderr.write(explain(cause))
  }
  Command.run(command, { name, version: "0.1.0" })(process.argv).pipe(
    Effect.tapErrorCause((cause) => Cause.isInterruptedOnly(cause) ? Effect.void : Effect.sync(() => say(cause))),
    Effect.provide(
      Layer.merge(NodeContext.layer, Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)))
    ),
    (program) =>
      NodeRuntime.runMain(program, {
        disableErrorReporting: true,
        disablePrettyLogger: true,
        teardown: (end, done) => {
          if (Exit.isSuccess(end)) return (exit ?? done)(exitCode.ok)
          if (Cause.isInterruptedOnly(end.cause)) return done(Number(process.exitCode ?? interruptedCode))
          done(codeOf(failureOf(end.cause)))
        }
      })
  )
}

const failureOf = (cause: Cause.Cause<unknown>): unknown => Option.getOrUndefined(Cause.failureOption(cause))

export const messageOf = (cause: Cause.Cause<unknown>): string => {
  const failure = failureOf(cause)
  return `${failure instanceof Error ? failure.message : Cause.pretty(cause)}\n`
}
