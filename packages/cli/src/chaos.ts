/** `orrery chaos`: fault runs against a cluster of its own, by the chaos program of this checkout, in a process of its own. */
import { Args, Command } from "@effect/cli"
import { Data, Effect } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { exitCode } from "./ExitCode.js"

/** The chaos package needs this one, so it is not imported here. */
const entry = fileURLToPath(new URL("../../chaos/src/main.ts", import.meta.url))

interface Compiler {
  readonly compile: (entry: string) => Promise<string>
}

/** What it said stands above; the code is its own. */
class ChaosEnded extends Data.TaggedError("ChaosEnded")<{ readonly exitCode: number }> {
  override get message() {
    return `chaos ended with code ${this.exitCode}`
  }
}

const compiled = Effect.promise(async () => {
  const { compile } = await import(new URL("../compile.mjs", import.meta.url).href) as Compiler
  return compile(entry)
})

/** Ctrl-C reaches both: the child stops its processes, and we wait for it. */
const run = (args: ReadonlyArray<string>) =>
  Effect.flatMap(compiled, (program) =>
    Effect.async<number>((resume) => {
      const child = spawn(process.execPath, [program, ...args], { stdio: "inherit" })
      child.once("error", () => resume(Effect.succeed(exitCode.software)))
      child.once("exit", (code) => resume(Effect.succeed(code ?? exitCode.software)))
      return Effect.async<void>((ended) => {
        child.once("exit", () => ended(Effect.void))
        child.kill("SIGTERM")
      })
    }).pipe(
      Effect.flatMap((code) => code === exitCode.ok ? Effect.void : new ChaosEnded({ exitCode: code }))
    ))

export const command = Command.make(
  "chaos",
  { args: Args.repeated(Args.text({ name: "argument" })) },
  ({ args }) => run(args)
).pipe(
  Command.withDescription(
    "Kill, freeze and cut off the processes of a cluster under load, made for it, and check that every promise held. "
      + "Give its flags after --: `orrery chaos -- --list`, `orrery chaos -- kill-node --seed 7 --json`."
  )
)
