/**
 * Peers as their users run them: from their own installed files, also when this program was compiled into one file, and
 * only in the processes that use them, because memory is measured too.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

interface Manifest {
  readonly version: string
  readonly main?: string
  readonly exports?: { readonly "."?: Target }
}
/** What a package offers under one name, by condition. */
type Target = string | { readonly import?: Target; readonly default?: Target }

const folderOf = (name: string) => join(import.meta.dirname, "../../node_modules", name)

const manifestOf = (name: string): Manifest => {
  try {
    return JSON.parse(readFileSync(join(folderOf(name), "package.json"), "utf8")) as Manifest
  } catch (cause) {
    throw new Error(`${name} is not installed: run npm start, or npx pnpm install, in the root folder`, { cause })
  }
}

const fileOf = (target: Target | undefined): string | undefined =>
  typeof target === "object" ? fileOf(target.import ?? target.default) : target

/** As installed, for the report. */
export const versionOf = (name: string): string => manifestOf(name).version

/** The module `name` of this package's dependencies. */
export const load = async <Module>(name: string): Promise<Module> => {
  const { exports, main } = manifestOf(name)
  const file = fileOf(exports?.["."]) ?? main ?? "index.js"
  return await import(pathToFileURL(join(folderOf(name), file)).href) as Module
}
