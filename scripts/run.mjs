// Entry of every npm script: sets up what is missing, then does one thing. No dependencies, as nothing may be
// installed yet.
//
//   node scripts/run.mjs demo | orrery | bench | layout | recovery | redis | schedules | limits | chaos | simulate | check | test [arguments]
import { join } from "node:path"
import { check } from "./check.mjs"
import { exec, root } from "./child.mjs"
import { Stop } from "./requirements.mjs"
import { setup } from "./setup.mjs"
import { test } from "./test.mjs"

// Loaded after the set-up, which installs what it needs.
const program = (file, engine = []) => async (args) => {
  const { compile } = await import("../packages/cli/compile.mjs")
  return exec(process.execPath, [...engine, await compile(join(root, file)), ...args])
}

/**
 * Of V8, where each core has a thread of its own at work: no helpers to collect its garbage, which would only take turns with
 * it; and it is compiled for speed when it has run longer than usual, as much of what a history does is rare.
 */
const busyThreads = ["--single-threaded-gc", "--interrupt-budget=200000"]

const commands = {
  demo: program("packages/examples/src/digest/main.ts"),
  orrery: (args) => exec(process.execPath, ["packages/cli/orrery.mjs", ...args]),
  layout: program("packages/bench/src/storageLayout.ts"),
  bench: program("packages/bench/src/main.ts"),
  recovery: program("packages/bench/src/recovery.ts"),
  redis: program("packages/bench/src/redisFigures.ts"),
  schedules: program("packages/bench/src/scheduleFigures.ts"),
  limits: program("packages/bench/src/limiterFigures.ts"),
  chaos: program("packages/chaos/src/main.ts"),
  simulate: program("packages/testing/src/simulation/main.ts", busyThreads),
  check,
  test
}

const [name = "", ...args] = process.argv.slice(2)
try {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) {
    throw new Stop(`usage: node scripts/run.mjs ${Object.keys(commands).join("|")} [arguments]`)
  }
  await setup()
  process.exitCode = await command(args)
} catch (error) {
  if (!(error instanceof Stop)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
