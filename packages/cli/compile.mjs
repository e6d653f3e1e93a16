/**
 * Programs of this repository as one file of JavaScript: it starts in half a second, where loading some two thousand
 * TypeScript and library modules one by one takes three. Compiled when first asked for, and again when a source changed.
 * Plain JavaScript, because it is what makes TypeScript runnable. Stack traces name the sources with
 * `NODE_OPTIONS=--enable-source-maps`.
 */
import { createHash, randomUUID } from "node:crypto"
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { basename, dirname, join, resolve, sep } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = fileURLToPath(new URL("../../", import.meta.url))
const folder = join(root, ".orrery", "build")

/** Where a compiled program finds the handlers compiled into it; read by `handlersModule.ts`. */
const handlersKey = "@orrery/cli/compiledHandlers"

/**
 * The compiled program. `handlers`: a module compiled into it, so that it shares the program's copy of `effect`.
 *
 * @param {string} entry
 * @param {string | undefined} handlers
 * @returns {Promise<string>} its file
 */
export const compile = async (entry, handlers = undefined) => {
  const files = [entry, ...(handlers === undefined ? [] : [handlers])].map((file) => resolve(file))
  const key = createHash("sha256").update([process.version, ...files].join("\n")).digest("hex").slice(0, 12)
  const output = join(folder, `${basename(entry, ".ts")}-${key}.mjs`)
  if (isFresh(output)) return output
  const { build } = await import("esbuild")
  mkdirSync(folder, { recursive: true })
  // Several processes may compile the same at once: each into a file of its own, and the last one stays.
  const draft = `${output}.${randomUUID()}`
  const result = await build({
    stdin: { contents: entryOf(files), resolveDir: root, sourcefile: "entry.js" },
    absWorkingDir: root,
    outfile: draft,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    sourcemap: "linked",
    metafile: true,
    logLevel: "silent",
    banner: {
      js:
        `import { createRequire as createRequireOf } from "node:module"; const require = createRequireOf(import.meta.url);`
    },
    plugins: [ownPlaces, outsiders]
  })
  const inputs = Object.keys(result.metafile.inputs)
    .filter((file) => !file.includes("node_modules") && !file.includes(":") && file !== "entry.js")
    .map((file) => resolve(root, file))
  writeFileSync(`${draft}.json`, JSON.stringify([...inputs, join(root, "pnpm-lock.yaml")].map(stampOf)))
  renameSync(`${draft}.map`, `${output}.map`)
  renameSync(`${draft}.json`, `${output}.json`)
  renameSync(draft, output)
  return output
}

const entryOf = ([main, handlers]) => {
  const register = handlers === undefined ? "" : `globalThis[Symbol.for(${JSON.stringify(handlersKey)})] = {
    file: ${JSON.stringify(handlers)}, load: () => import(${JSON.stringify(handlers)})
  };`
  // In this order: imports would come first.
  return `${register}\nawait import(${JSON.stringify(main)})`
}

const stampOf = (file) => {
  const { mtimeMs, size } = statSync(file)
  return [file, mtimeMs, size]
}

const isFresh = (output) => {
  try {
    statSync(output)
    return JSON.parse(readFileSync(`${output}.json`, "utf8")).every((stamp) =>
      stampOf(stamp[0]).every((value, at) => value === stamp[at])
    )
  } catch {
    return false
  }
}

const isInstalled = (file) => file.includes(`${sep}node_modules${sep}`)

/** A source that asks where it lies is told so, and not where the compiled file lies. */
const ownPlaces = {
  name: "own-places",
  setup: ({ onLoad }) =>
    onLoad({ filter: /\.(?:ts|mts|js|mjs)$/ }, ({ path }) => {
      if (isInstalled(path)) return undefined
      const contents = readFileSync(path, "utf8")
        .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href))
        .replaceAll("import.meta.dirname", JSON.stringify(dirname(path)))
      return { contents, loader: /\.m?ts$/.test(path) ? "ts" : "js" }
    })
}

/** What handlers import beside effect and Orrery stays where it is installed: it may hold native code. */
const outsiders = {
  name: "outsiders",
  setup: ({ onResolve, resolve: find }) =>
    onResolve({ filter: /^[^./]/ }, async ({ importer, kind, path, pluginData, resolveDir }) => {
      if (pluginData === "asked" || /^(?:node:|effect(?:\/|$)|@effect\/|@orrery\/)/.test(path)) return undefined
      const isOurs = importer.startsWith(join(root, "packages") + sep) || isInstalled(importer)
      if (path !== "esbuild" && (isOurs || resolve(path) === path)) return undefined
      const found = await find(path, { importer, kind, resolveDir, pluginData: "asked" })
      if (found.external || found.errors.length > 0) return found
      return { path: pathToFileURL(found.path).href, external: true }
    })
}
