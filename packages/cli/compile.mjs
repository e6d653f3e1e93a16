/**
 * Programs of this repository as one file of JavaScript: it starts in half a second, where loading some two thousand
 * TypeScript and library modules one by one takes three. Compiled when first asked for, and again when a source changed;
 * `launch.mjs` runs it. Plain JavaScript, because it is what makes TypeScript runnable. Stack traces name the sources with
 * `NODE_OPTIONS=--enable-source-maps`.
 */
import { createHash, randomUUID } from "node:crypto"
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs"
import { basename, dirname, join, resolve, sep } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = fileURLToPath(new URL("../../", import.meta.url))
const folder = join(root, ".orrery", "build")
const launcher = new URL("launch.mjs", import.meta.url).href

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
  mkdirSync(folder, { recursive: true })
  return oneAtATime(output, () => make(files, output))
}

/** A compiler that takes longer was killed, or is of another machine. */
const patienceMs = 30_000
const lookEveryMs = 50

/** A cluster starts many processes at once: one compiles, the others wait. */
const oneAtATime = async (output, work) => {
  const lock = `${output}.lock`
  const until = performance.now() + patienceMs
  while (!isTaken(lock) && performance.now() < until) {
    await pause(lookEveryMs)
    if (isFresh(output)) return output
  }
  try {
    return isFresh(output) ? output : await work()
  } finally {
    rmSync(lock, { force: true })
  }
}

const isTaken = (lock) => {
  try {
    closeSync(openSync(lock, "wx"))
    return true
  } catch (error) {
    if (error.code === "EEXIST") return false
    throw error
  }
}

const make = async (files, output) => {
  // As a script, for which V8 keeps what it compiled. What imports modules of its own, or waits while it loads, cannot be one.
  const script = await bundle(files, output, "cjs").catch(() => undefined)
  const { code, inputs, map } = script ?? await bundle(files, output, "esm")
  writeWhole(`${output}.map`, map)
  const reference = `\n//# sourceMappingURL=${basename(output)}.map\n`
  if (script === undefined) writeWhole(output, `${code}${reference}`)
  else {
    // The launcher finds what V8 kept of the same by what a program begins with.
    writeWhole(`${output}.cjs`, `/* ${randomUUID()} */${code.replace(dynamicImport, importer)}${reference}`)
    writeWhole(output, `import { launch } from "${launcher}"\nlaunch(${JSON.stringify(`${output}.cjs`)})\n`)
  }
  // At last: it makes the program fresh.
  writeWhole(`${output}.json`, JSON.stringify([...inputs, ...makers].map(stampOf)))
  return output
}

/** A program is made anew where these changed, too. */
const makers = [fileURLToPath(import.meta.url), fileURLToPath(launcher), join(root, "pnpm-lock.yaml")]

/** What is found while the program runs. V8 forgets how such a script imports once it takes it from what it kept. */
const dynamicImport = /(?<![\w.$])import\(/g
const importer = `globalThis[Symbol.for("@orrery/cli/import")](`

/** Who reads it meanwhile finds the old one or the new one. */
const writeWhole = (file, contents) => {
  const draft = `${file}.${randomUUID()}`
  writeFileSync(draft, contents)
  renameSync(draft, file)
}

/** As from Node 21 on: without it, `pg` finds out where it runs by way of `fetch`, and all of that is loaded at each start. */
const navigator = { navigator: JSON.stringify({ userAgent: "Node.js" }) }

const formats = {
  cjs: {
    define: { ...navigator, "import.meta.url": "programUrl" },
    banner: { js: "\"use strict\"; const programUrl = require(\"node:url\").pathToFileURL(__filename).href;" }
  },
  esm: {
    define: navigator,
    banner: {
      js:
        "import { createRequire as createRequireOf } from \"node:module\"; const require = createRequireOf(import.meta.url);"
    }
  }
}

const bundle = async (files, output, format) => {
  const { build } = await import("esbuild")
  const { metafile, outputFiles } = await build({
    stdin: { contents: entryOf(files), resolveDir: root, sourcefile: "entry.js" },
    absWorkingDir: root,
    outfile: output,
    write: false,
    bundle: true,
    platform: "node",
    format,
    target: "node20",
    sourcemap: "external",
    sourcesContent: false,
    metafile: true,
    logLevel: "silent",
    plugins: [compiledHandlers(files), ownPlaces, outsiders(format)],
    ...formats[format]
  })
  const inputs = Object.keys(metafile.inputs)
    .filter((file) => !file.includes("node_modules") && !file.includes(":") && file !== "entry.js")
    .map((file) => resolve(root, file))
  const text = (end) => outputFiles.find(({ path }) => path.endsWith(end)).text
  return { code: text(".mjs"), map: text(".map"), inputs }
}

const handlersModule = "orrery:handlers"

/** In this order. */
const entryOf = ([main, handlers]) =>
  [...(handlers === undefined ? [] : [handlersModule]), main].map((file) => `import ${JSON.stringify(file)}\n`).join("")

/** A module that tells the program of its handlers, which are loaded when it asks for them. */
const compiledHandlers = ([, handlers]) => ({
  name: "compiled-handlers",
  setup: ({ onLoad, onResolve }) => {
    const namespace = "orrery"
    onResolve(
      { filter: new RegExp(`^${handlersModule}$`) },
      () => ({ path: handlersModule, namespace, sideEffects: true })
    )
    onLoad({ filter: /./, namespace }, () => ({
      resolveDir: root,
      contents: `globalThis[Symbol.for(${JSON.stringify(handlersKey)})] = {
        file: ${JSON.stringify(handlers)}, load: () => import(${JSON.stringify(handlers)})
      }`
    }))
  }
})

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
      const contents = withoutBarrels(readFileSync(path, "utf8"))
        .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href))
        .replaceAll("import.meta.dirname", JSON.stringify(dirname(path)))
      return { contents, loader: /\.m?ts$/.test(path) ? "ts" : "js" }
    })
}

const barrelImport = /^import \{([^}]*)\} from (["'])(effect|@effect\/[a-z-]+)\2/gm
const typeOnly = /^type\s/

/**
 * `Effect.map` by way of `import { Effect } from "effect"` would be looked up in an object at each use, and keep all of its
 * module; by way of `import * as Effect from "effect/Effect"` it is that function and nothing else.
 */
const withoutBarrels = (source) =>
  source.replace(barrelImport, (whole, list, _, from) => {
    const names = list.split(",").map((name) => name.trim()).filter((name) => name !== "" && !typeOnly.test(name))
    // What begins otherwise is no module.
    if (!names.every((name) => /^[A-Z]\w*(?: as \w+)?$/.test(name))) return whole
    const modules = names.map((name) => {
      const [module, alias = module] = name.split(" as ")
      return `import * as ${alias} from "${from}/${module}"`
    })
    // Lines keep their numbers.
    return modules.join("; ") + "\n".repeat(whole.split("\n").length - 1)
  })

/** What handlers import beside effect and Orrery stays where it is installed: it may hold native code. */
const outsiders = (format) => ({
  name: "outsiders",
  setup: ({ onResolve, resolve: find }) =>
    onResolve({ filter: /^[^./]/ }, async ({ importer, kind, path, pluginData, resolveDir }) => {
      if (pluginData === "asked" || /^(?:node:|effect(?:\/|$)|@effect\/|@orrery\/)/.test(path)) return undefined
      const isOurs = importer.startsWith(join(root, "packages") + sep) || isInstalled(importer)
      if (path !== "esbuild" && (isOurs || resolve(path) === path)) return undefined
      const found = await find(path, { importer, kind, resolveDir, pluginData: "asked" })
      if (found.external || found.errors.length > 0) return found
      if (format === "cjs") return { errors: [{ text: `${path} is a module of its own` }] }
      return { path: pathToFileURL(found.path).href, external: true }
    })
})
