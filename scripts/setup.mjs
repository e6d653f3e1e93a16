import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { capture, root } from "./child.mjs"
import { checkDisk, checkNode, Stop } from "./requirements.mjs"

const stampFile = join(root, "node_modules", ".orrery-setup")

/** Everything an install depends on: when it is as last time, there is nothing to install. */
const fingerprint = () => {
  const packages = readdirSync(join(root, "packages")).sort().map((name) => join("packages", name, "package.json"))
  const hash = createHash("sha256").update(`${process.version} ${process.platform} ${process.arch}`)
  for (const file of ["package.json", "pnpm-workspace.yaml", "pnpm-lock.yaml", ".npmrc", ...packages]) {
    if (existsSync(join(root, file))) hash.update(file).update(readFileSync(join(root, file)))
  }
  return hash.digest("hex")
}

const isDone = (wanted) => existsSync(stampFile) && readFileSync(stampFile, "utf8") === wanted

/** Checks the machine and installs the dependencies, once per change of the lockfile or the manifests. */
export const setup = async () => {
  checkNode()
  checkDisk(root)
  const wanted = fingerprint()
  if (isDone(wanted)) return
  const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  // "pnpm@1.2.3+sha512..." names a checksum that npx does not know.
  const pnpm = packageManager.split("+")[0]
  process.stderr.write(`Installing dependencies with ${pnpm} (once) ...\n`)
  const windows = process.platform === "win32"
  const args = ["--yes", pnpm, "install", "--frozen-lockfile", "--reporter=append-only"]
  const { code, output } = await capture(windows ? "npx.cmd" : "npx", args, {
    shell: windows,
    // Without a terminal pnpm would stop and ask before it replaces a node_modules of another layout.
    env: { ...process.env, CI: "true" }
  })
  if (code !== 0) {
    const tail = output.trim().split("\n").slice(-15).join("\n")
    throw new Stop(`${adviceFor(output)}\n\nLast lines of the install:\n${tail}`)
  }
  mkdirSync(join(root, "node_modules"), { recursive: true })
  writeFileSync(stampFile, wanted)
}

const advice = [
  [/ENOSPC/, "The disk is full: free at least 1 GB, then run this again."],
  [
    /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|META_FETCH_FAIL/,
    "The package registry cannot be reached: check network and proxy (npm config get registry), then run this again."
  ],
  [
    /OUTDATED_LOCKFILE|LOCKFILE_CONFIG_MISMATCH/,
    "pnpm-lock.yaml does not fit the package.json files: run npx pnpm install, then commit pnpm-lock.yaml."
  ],
  [/EACCES|EPERM/, "Not permitted: this user must be able to write the repository folder and the npm cache."],
  [/UNSUPPORTED_ENGINE/, "A dependency needs another Node version: see below."]
]

const adviceFor = (output) =>
  advice.find(([pattern]) => pattern.test(output))?.[1]
    ?? "The dependencies could not be installed: see below; delete node_modules and run this again."
