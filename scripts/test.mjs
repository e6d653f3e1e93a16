import { randomUUID } from "node:crypto"
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join, relative } from "node:path"
import { exec, root } from "./child.mjs"

/**
 * Cluster tests mostly wait, one file at a time: they run beside the others. No more than these two at once, for they share two cores with
 * the servers and processes they start, and some are about time.
 */
const lanes = [[["unit"], ["pg", "redis"]], [["cluster"]]]
const argumentsOf = (projects) => projects.flatMap((name) => ["--project", name])

/** Runs vitest over all projects, or as `args` say. The last line tells the numbers and never hides a failure. */
export const test = async (args) => {
  mkdirSync(join(root, ".orrery"), { recursive: true })
  const steps = args.length > 0 ? [[args]] : lanes.map((lane) => lane.map(argumentsOf))
  const runs = (await Promise.all(steps.map(oneByOne))).flat()
  const sum = (of) => runs.reduce((total, run) => total + of(run), 0)
  const [passed, failed, skipped] = [sum((run) => run.passed), sum((run) => run.failed), sum((run) => run.skipped)]
  if (passed + failed === 0) process.stdout.write("no test ran\n")
  for (const { failures } of runs) process.stdout.write(failures)
  const tail = skipped > 0 ? `, ${skipped} skipped` : ""
  process.stdout.write(`tests: ${passed} passed, ${failed} failed${tail}\n`)
  const code = runs.find((run) => run.code !== 0)?.code ?? 0
  if (code !== 0) return code
  return failed === 0 && passed > 0 ? 0 : 1
}

const oneByOne = async (lane) => {
  const runs = []
  for (const args of lane) runs.push(await vitest(args))
  return runs
}

const vitest = async (args) => {
  const resultFile = join(root, ".orrery", `test-result-${randomUUID()}.json`)
  const code = await exec(process.execPath, [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    ...["--reporter=default", "--reporter=json", `--outputFile.json=${resultFile}`],
    ...args
  ])
  const result = readResult(resultFile)
  rmSync(resultFile, { force: true })
  const { failed, passed, skipped } = count(result)
  // A crash of vitest, or an error outside of any test: vitest said which, above.
  const unnamed = code !== 0 && failed === 0 && (passed > 0 || result === undefined) ? 1 : 0
  if (unnamed > 0) {
    process.stdout.write(code > 128 ? "stopped by a signal\n" : "vitest failed outside of a test, counted as one\n")
  }
  return { code, failures: failures(result), passed, failed: failed + unnamed, skipped }
}

/** `undefined` when vitest ended before it could write it. */
const readResult = (file) => {
  try {
    return JSON.parse(readFileSync(file, "utf8"))
  } catch {
    return undefined
  }
}

const failureLinesMax = 40

/** Said once more at the end: the two vitests print side by side, and who reads a log reads its end. */
const failures = (result) =>
  (result?.testResults ?? [])
    .filter((file) => file.status === "failed")
    .flatMap((file) => {
      const failed = file.assertionResults.filter((one) => one.status === "failed")
      const said = failed.map((one) => [one.fullName, one.failureMessages.join("\n")])
      return (said.length > 0 ? said : [["could not be loaded", file.message]]).map(([name, text]) => {
        const lines = `${text}`.split("\n").slice(0, failureLinesMax).map((line) => `    ${line}\n`)
        return `FAILED ${relative(root, file.name)}: ${name}\n${lines.join("")}`
      })
    })
    .join("")

const count = (result) => {
  if (result === undefined) return { passed: 0, failed: 0, skipped: 0 }
  // A file that could not be loaded has no tests, and is a failure all the same.
  const broken =
    result.testResults.filter((file) =>
      file.status === "failed" && !file.assertionResults.some((one) => one.status === "failed")
    ).length
  return {
    passed: result.numPassedTests,
    failed: result.numFailedTests + broken,
    skipped: result.numPendingTests + result.numTodoTests
  }
}
