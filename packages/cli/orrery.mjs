#!/usr/bin/env node
// The `orrery` command of a checkout: compiles what changed, with the module of `--handlers` in it, and runs it.
import { existsSync } from "node:fs"
import { fileURLToPath, pathToFileURL } from "node:url"
import { compile } from "./compile.mjs"

const handlersOf = (args) => {
  const at = args.findIndex((arg) => arg === "--handlers" || arg.startsWith("--handlers="))
  if (at < 0) return undefined
  const file = args[at] === "--handlers" ? args[at + 1] : args[at].slice("--handlers=".length)
  return file !== undefined && existsSync(file) ? file : undefined
}

const main = fileURLToPath(new URL("./src/main.ts", import.meta.url))
const program = await compile(main, handlersOf(process.argv.slice(2))).catch(async (error) => {
  const handlers = handlersOf(process.argv.slice(2))
  if (handlers === undefined) throw error
  // Told by the command itself, as every other problem with the file.
  process.stderr.write(`${error.message}\n`)
  return compile(main)
})
await import(pathToFileURL(program).href)
