/**
 * Checks what the compiler and the linter cannot: the rules of the house that hold for files, folders and packages.
 * Prints `path:line rule message` per finding and exits with 1 if there is any.
 *
 * `findings` is pure, over the tracked files, so that packages/testing/test/tidy.test.ts can feed it bad trees.
 */
import { execFileSync } from "node:child_process"
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { decisionHeadings, lineRules, topLevel } from "./tidyRules.ts"

/** Path from the top of the repository to text. */
export type Tree = ReadonlyMap<string, string>

export interface Finding {
  readonly path: string
  readonly line: number
  readonly rule: string
  readonly message: string
}

const srcLinesMax = 500
const testLinesMax = 800
const bannedNames = /(?:^|\/)(?:utils?|helpers?|common|misc)(?:\.[a-z]+|\/)/
const bannedFolders = /(?:^|\/)(?:services|layers|errors|types)\//
const anything = [
  ...["core", "store-pg", "signals-redis", "api", "worker", "cluster", "orrery", "cli"],
  ...["testing", "bench", "examples"]
]

/** Which packages a package may import. Dependencies point to core. */
const mayImport: Readonly<Record<string, ReadonlyArray<string>>> = {
  core: [],
  "store-pg": ["core"],
  "signals-redis": ["core"],
  api: ["core"],
  worker: ["core", "api"],
  cluster: ["core", "api", "worker", "store-pg"],
  orrery: ["core", "api", "worker", "store-pg", "signals-redis", "cluster"],
  testing: anything,
  cli: anything,
  examples: anything,
  bench: anything,
  chaos: anything
}

/** The files of cluster that may name the PostgreSQL adapters: they assemble a node. */
const clusterRoots = /\/(?:OrreryNode|ShardManager|LockPool)\.ts$/

/** Every finding, in the order of the paths. */
export const findings = (tree: Tree): ReadonlyArray<Finding> =>
  [...tree].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([path, text]) => [
    ...checkPlace(path),
    ...checkSize(path, text),
    ...checkLines(path, text),
    ...checkImports(path, text),
    ...checkManifest(path, text, tree),
    ...checkDecision(path, text)
  ])

const at = (path: string, line: number, rule: string, message: string): Finding => ({ path, line, rule, message })

const checkPlace = (path: string): ReadonlyArray<Finding> => {
  const top = path.split("/")[0] ?? ""
  const found: Array<Finding> = []
  if (!top.startsWith(".") && !topLevel.includes(top)) {
    found.push(at(path, 1, "top-level", `"${top}" is not one of ${topLevel.join(", ")} or a dot file`))
  }
  if (bannedNames.test(path) || bannedFolders.test(path)) {
    found.push(at(path, 1, "name", "name files and folders for their concept, not for their kind"))
  }
  return found
}

const checkSize = (path: string, text: string): ReadonlyArray<Finding> => {
  if (!/\.(?:ts|mjs)$/.test(path)) return []
  const lines = text.trimEnd().split("\n").length
  const max = /\.test\.ts$/.test(path) ? testLinesMax : srcLinesMax
  return lines > max ? [at(path, max, "size", `${lines} lines, at most ${max}: split it by duty`)] : []
}

const checkLines = (path: string, text: string): ReadonlyArray<Finding> => {
  const rules = lineRules.filter((rule) => rule.files.test(path) && !rule.allowed.some(({ files }) => files.test(path)))
  if (rules.length === 0) return []
  return text.split("\n").flatMap((line, index) =>
    rules.flatMap((rule) => {
      const code = rule.comments === "count" ? line : withoutComment(line)
      return rule.pattern.test(code) ? [at(path, index + 1, rule.name, rule.message)] : []
    })
  )
}

/** Good enough for our own code: a comment starts a line, or follows two spaces or a space. */
const withoutComment = (line: string) => /^\s*(?:\/\/|\/?\*)/.test(line) ? "" : line.replace(/\s\/\/ .*$/, "")

const checkImports = (path: string, text: string): ReadonlyArray<Finding> => {
  const [, owner, part] = /^packages\/([^/]+)\/(src|test)\//.exec(path) ?? []
  // Tests may use the testing package and any adapter.
  if (owner === undefined || part === "test") return []
  const allowed = mayImport[owner] ?? []
  return text.split("\n").flatMap((line, index) => {
    const [, target] = /(?:from|import|import\()\s*"(?:@orrery\/|(?:\.\.\/)+packages\/)([a-z-]+)/.exec(line) ?? []
    if (target === undefined) return []
    if (target === owner) return [at(path, index + 1, "imports", "import files of the own package by relative path")]
    if (!allowed.includes(target)) return [at(path, index + 1, "imports", `${owner} may not import ${target}`)]
    if (owner === "cluster" && target === "store-pg" && !clusterRoots.test(path)) {
      return [at(path, index + 1, "imports", "only OrreryNode, ShardManager and LockPool may name store-pg")]
    }
    return []
  })
}

const checkManifest = (path: string, text: string, tree: Tree): ReadonlyArray<Finding> => {
  if (!/^(?:packages\/[^/]+\/)?package\.json$/.test(path)) return []
  const found: Array<Finding> = []
  const readme = path.replace("package.json", "README.md")
  if (path !== "package.json" && !tree.has(readme)) found.push(at(path, 1, "readme", `${readme} is missing`))
  const manifest = JSON.parse(text) as Readonly<Record<string, Readonly<Record<string, string>> | undefined>>
  for (const kind of ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"]) {
    for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
      if (version === (name.startsWith("@orrery/") ? "workspace:*" : "catalog:")) continue
      const line = text.split("\n").findIndex((one) => one.includes(`"${name}"`)) + 1
      found.push(at(path, line, "versions", `${name}: say "catalog:" (own packages "workspace:*"), not ${version}`))
    }
  }
  return found
}

const checkDecision = (path: string, text: string): ReadonlyArray<Finding> => {
  if (!/^docs\/decisions\/.+\.md$/.test(path) || path.endsWith("/README.md")) return []
  return decisionHeadings
    .filter((heading) => !new RegExp(`^(?:## ${heading}\\b|${heading}:|\\*\\*${heading}\\*\\*)`, "m").test(text))
    .map((heading) => at(path, 1, "decision", `no "${heading}"`))
}

/** What git tracks or would track: ignored files are nobody's business. */
const readTree = (root: string): Tree => {
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8"
  })
  const paths = new Set(listed.split("\0"))
  return new Map([...paths].flatMap((path) => {
    const entry = path === "" ? undefined : statSync(join(root, path), { throwIfNoEntry: false })
    return entry?.isFile() === true ? [[path, readFileSync(join(root, path), "utf8")] as const] : []
  }))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = findings(readTree(fileURLToPath(new URL("..", import.meta.url))))
  for (const { line, message, path, rule } of found) process.stdout.write(`${path}:${line} ${rule} ${message}\n`)
  process.exitCode = found.length === 0 ? 0 : 1
}
