/** The process of the `orrery` command. Exit codes: `ExitCode.ts`. */
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Cause, Effect, Layer, Logger } from "effect"
import { codeOf, explain, run } from "./orrery.js"

run(process.argv).pipe(
  Effect.tapErrorCause((cause) =>
    Cause.isInterruptedOnly(cause) ? Effect.void : Effect.sync(() => process.stderr.write(explain(cause)))
  ),
  // Standard output is for results and ready lines.
  Effect.provide(
    Layer.merge(
      Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)),
      NodeContext.layer
    )
  ),
  (program) =>
    NodeRuntime.runMain(program, {
      disableErrorReporting: true,
      disablePrettyLogger: true,
      // A signal is how a long-running process is meant to end: it has set its code.
      teardown: (exit, done) =>
        done(codeOf(exit, process.exitCode === undefined ? undefined : Number(process.exitCode)))
    })
)
