import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { exec, root } from "./child.mjs"

const resultFile = join(root, ".orrery", `test-result-${process.pid}.json`)

/** Runs vitest over all projects; `args` go to it. The last line tells the numbers and never hides a failure. */
export const test = async (args) => {
  mkdirSync(join(root, ".orrery"), { recursive: true })
  const code = await exec(process.execPath, [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    ...["--reporter=default", "--reporter=json", `--outputFile.json=${resultFile}`],
    ...args
  ])
  const result = readResult()
  rmSync(resultFile, { force: true })
  const { failed, passed, skipped } = count(result)
  const ran = passed + failed > 0
  // A crash of vitest, or an error outside of any test: vitest said which, above.
  const unnamed = code !== 0 && failed === 0 && (ran || result === undefined) ? 1 : 0
  if (unnamed > 0) {
    process.stdout.write(code > 128 ? "stopped by a signal\n" : "vitest failed outside of a test, counted as one\n")
  } else if (!ran) process.stdout.write("no test ran\n")
  const tail = skipped > 0 ? `, ${skipped} skipped` : ""
  process.stdout.write(`tests: ${passed} passed, ${failed + unnamed} failed${tail}\n`)
  if (code !== 0) return code
  return failed === 0 && ran ? 0 : 1
}

/** `undefined` when vitest ended before it could write it. */
const readResult = () => {
  try {
    return JSON.parse(readFileSync(resultFile, "utf8"))
  } catch {
    return undefined
  }
}

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
