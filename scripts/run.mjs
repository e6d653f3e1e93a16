// Entry of every npm script: sets up what is missing, then does one thing. No dependencies, as nothing may be
// installed yet.
//
//   node scripts/run.mjs demo | orrery | layout | recovery | check | test [arguments]
import { check } from "./check.mjs"
import { exec } from "./child.mjs"
import { Stop } from "./requirements.mjs"
import { setup } from "./setup.mjs"
import { test } from "./test.mjs"

const program = (file) => (args) => exec(process.execPath, ["--import", "tsx", file, ...args])

const commands = {
  demo: program("packages/examples/src/digest/main.ts"),
  orrery: program("packages/cli/src/main.ts"),
  layout: program("packages/bench/src/storageLayout.ts"),
  recovery: program("packages/bench/src/recovery.ts"),
  check,
  test
}

const [name = "", ...args] = process.argv.slice(2)
try {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) throw new Stop(`usage: node scripts/run.mjs ${Object.keys(commands).join("|")} [arguments]`)
  await setup()
  process.exitCode = await command(args)
} catch (error) {
  if (!(error instanceof Stop)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
