import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { capture, root } from "./child.mjs"

const bin = (name, file) => join(root, "node_modules", name, file)

const steps = (fix) => ({
  types: [bin("typescript", "bin/tsc"), "--noEmit", "-p", "tsconfig.json"],
  // Effect's own rules: floating effects, missing services, `yield` without `*`. Warnings are shown, errors fail.
  effect: [
    bin("@effect/language-service", "cli.js"),
    ...["diagnostics", "--project", "tsconfig.json", "--format", "text", "--severity", "error,warning"]
  ],
  lint: [
    bin("eslint", "bin/eslint.js"),
    ...["--config", "scripts/eslint.config.mjs", "--max-warnings", "0", "--no-warn-ignored"],
    ...(fix ? ["--fix"] : []),
    ...["packages", "scripts", "vitest.workspace.ts"]
  ],
  tidy: ["--import", "tsx", "scripts/tidy.ts"]
})

/**
 * Types, Effect diagnostics, lint with format, tidy: all of them, side by side, so that one run shows every finding.
 * `--fix` formats first.
 */
export const check = async (args) => {
  mkdirSync(join(root, ".orrery"), { recursive: true })
  const started = performance.now()
  const running = Object.entries(steps(args.includes("--fix"))).map(async ([name, command]) => {
    const { code, output } = await capture(process.execPath, command)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    const findings = output.trim()
    if (findings !== "") process.stdout.write(`${findings}\n`)
    process.stdout.write(`check ${name}: ${code === 0 ? "ok" : "failed"} (${seconds} s)\n`)
    return code
  })
  const codes = await Promise.all(running)
  return codes.find((code) => code > 128) ?? (codes.every((code) => code === 0) ? 0 : 1)
}
