/** The command as a person runs it, for tests. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../orrery.mjs", import.meta.url))

export interface Answer {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** `env` holds all it knows of the cluster. */
export const orrery = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  Effect.async<Answer>((resume) => {
    const child = execFile(process.execPath, [main, ...args], {
      env: { PATH: process.env["PATH"], ...env },
      timeout: 60_000
    }, (_, out, err) => resume(Effect.succeed({ code: child.exitCode ?? -1, out: out.trim(), err })))
  })
