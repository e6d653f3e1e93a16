/**
 * Runs a program that `compile.mjs` made, with what V8 compiled of it before, which saves a good part of a start. It is kept a while after the
 * first start of each command, and where that ended sooner, at its end.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname } from "node:path"
import { cachedDataVersionTag } from "node:v8"
import { constants, Script } from "node:vm"

/** A comment with a UUID, by which program and cache belong together. */
const markLength = 42
/** By then a node or worker is at work. */
const keepAfterMs = 4_000

/** @param {string} file */
export const launch = (file) => {
  // See `compile.mjs`.
  globalThis[Symbol.for("@orrery/cli/import")] = (specifier) => import(specifier)
  const require = createRequire(file)
  // Node looks for the map of a module only.
  if (process.sourceMapsEnabled === true) return void require(file)
  // As esbuild writes it: nothing but ASCII.
  const source = readFileSync(file, "latin1")
  const mark = source.slice(0, markLength)
  // Each command needs other parts; and flags of Node make V8 compile otherwise.
  const [, , word = ""] = process.argv
  const cache = `${file}.${/^[a-z-]{1,20}$/.test(word) ? word : "any"}.${cachedDataVersionTag().toString(36)}.cache`
  const cachedData = cacheOf(cache, mark)
  const script = new Script(`(function (exports, require, module, __filename, __dirname) { ${source}\n})`, {
    filename: file,
    ...(cachedData === undefined ? {} : { cachedData }),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
  })
  if (cachedData === undefined || script.cachedDataRejected === true) keepSoon(script, cache, mark)
  const module = { exports: {} }
  script.runInThisContext()(module.exports, require, module, file, dirname(file))
}

const cacheOf = (cache, mark) => {
  try {
    const kept = readFileSync(cache)
    return kept.latin1Slice(0, markLength) === mark ? kept.subarray(markLength) : undefined
  } catch {
    return undefined
  }
}

const keepSoon = (script, cache, mark) => {
  let isKept = false
  const keep = () => {
    if (isKept) return
    isKept = true
    try {
      const draft = `${cache}.${process.pid}`
      writeFileSync(draft, Buffer.concat([Buffer.from(mark, "latin1"), script.createCachedData()]))
      renameSync(draft, cache)
    } catch {
      // The next one is as slow as this one.
    }
  }
  setTimeout(keep, keepAfterMs).unref()
  process.once("exit", keep)
}
