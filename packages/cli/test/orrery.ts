/** The command, for tests. */
import { Command, ValidationError } from "@effect/cli"
import { NodeContext } from "@effect/platform-node"
import { exitCode, ofFailure } from "@orrery/cli/ExitCode"
import * as Orrery from "@orrery/cli/orrery"
import { Cause, ConfigProvider, Effect, Layer, Logger, Option } from "effect"
import { execFile } from "node:child_process"
import { format } from "node:util"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../orrery.mjs", import.meta.url))

export interface Answer {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** By a process of its own, as a person runs it. `env` holds all it knows of the cluster. */
export const orrery = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  Effect.async<Answer>((resume) => {
    const child = execFile(process.execPath, [main, ...args], {
      env: { PATH: process.env["PATH"], ...env },
      timeout: 60_000
    }, (_, out, err) => resume(Effect.succeed({ code: child.exitCode ?? -1, out: out.trim(), err })))
  })

/** The same command in this process: for the many cases of one that another test runs as a process. Not for `node` and the like. */
export const orreryHere = (env: Record<string, string>, ...args: ReadonlyArray<string>): Effect.Effect<Answer> =>
  Effect.consoleWith((console) => {
    const [out, err]: [Array<string>, Array<string>] = [[], []]
    const into = (lines: Array<string>) => (...words: ReadonlyArray<unknown>) =>
      Effect.sync(() => void lines.push(format(...words)))
    return Command.run(Orrery.command, { name: "orrery", version: "0.1.0" })(["node", "orrery", ...args]).pipe(
      Effect.withConsole({ ...console, log: into(out), error: into(err) }),
      Effect.withConfigProvider(
        ConfigProvider.fromMap(new Map(Object.entries(env)), { pathDelim: "_", seqDelim: "," })
      ),
      Effect.provide(Layer.merge(NodeContext.layer, Logger.remove(Logger.defaultLogger))),
      Effect.matchCause({
        onSuccess: () => exitCode.ok,
        onFailure: (cause): number => {
          const failure = Option.getOrUndefined(Cause.failureOption(cause))
          // The parser has explained it.
          if (!ValidationError.isValidationError(failure)) err.push(Orrery.explain(cause))
          return ofFailure(failure)
        }
      }),
      Effect.map((code) => ({ code, out: out.join("\n").trim(), err: err.join("\n") }))
    )
  })
