import { Effect } from "effect"
import { resolve } from "node:path"
import { parseArgs } from "node:util"
import { DemoFailed } from "./demo.js"

export interface Flags {
  readonly once: boolean
  readonly json: boolean
  readonly directory: string
  readonly limit: number
}

/** More files than a demo needs; also the bound of what is held in memory. */
const limitMax = 1_000_000

const usage = "usage: npm start -- [--once] [--json] [--dir PATH] [--limit N]"

export const readArguments = (
  args: ReadonlyArray<string>,
  directoryDefault: string
): Effect.Effect<Flags, DemoFailed> =>
  Effect.try({
    try: () => {
      const { values } = parseArgs({
        args: [...args],
        options: {
          once: { type: "boolean", default: false },
          json: { type: "boolean", default: false },
          dir: { type: "string", default: directoryDefault },
          limit: { type: "string", default: String(limitMax) }
        }
      })
      const limit = Number(values.limit)
      if (!Number.isInteger(limit) || limit < 1 || limit > limitMax) throw new Error(`--limit must be 1 to ${limitMax}`)
      return { once: values.once, json: values.json, directory: resolve(values.dir), limit }
    },
    catch: (cause) => new DemoFailed({ reason: `${cause instanceof Error ? cause.message : cause}\n${usage}` })
  })
