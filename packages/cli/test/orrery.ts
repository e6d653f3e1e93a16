/** The command, for tests. */
import { NodeContext } from "@effect/platform-node"
import * as Orrery from "@orrery/cli/orrery"
import { ConfigProvider, Effect, Layer, Logger } from "effect"
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
    return Orrery.run(["node", "orrery", ...args]).pipe(
      Effect.withConsole({ ...console, log: into(out), error: into(err) }),
      Effect.withConfigProvider(
        ConfigProvider.fromMap(new Map(Object.entries(env)), { pathDelim: "_", seqDelim: "," })
      ),
      Effect.provide(Layer.merge(NodeContext.layer, Logger.remove(Logger.defaultLogger))),
      Effect.tapErrorCause((cause) => Effect.sync(() => err.push(Orrery.explain(cause)))),
      Effect.exit,
      Effect.map((exit) => ({ code: Orrery.codeOf(exit), out: out.join("\n").trim(), err: err.join("\n") }))
    )
  })
