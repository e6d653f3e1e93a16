import { compiled } from "@orrery/testing/compiled"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const program = fileURLToPath(new URL("./examples.ts", import.meta.url))

/** What an example writes, in a process of its own. */
export const outputOf = async (example: string): Promise<string> => {
  const { stdout } = await promisify(execFile)(process.execPath, [await compiled(program), example])
  return stdout.trimEnd()
}
