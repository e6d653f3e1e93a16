/** Where `redis-server` is; gets it where it is not installed. */
import { Data, Effect, Option } from "effect"
import { execFile } from "node:child_process"
import { randomBytes } from "node:crypto"
import { accessSync, constants } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"

/** Read by a person at a terminal: `detail` says what happened and what to do. */
export class RedisServerFailed extends Data.TaggedError("RedisServerFailed")<{
  readonly reason: "NoProgram" | "StartFailed"
  readonly detail: string
  readonly cause?: unknown
}> {
  override get message() {
    return `Redis: ${this.detail}`
  }
}

export interface RedisProgram {
  readonly file: string
  /** Folders of the libraries that came with it, as in `LD_LIBRARY_PATH`. */
  readonly libraries: string
  readonly version: string
}

/** On the disk of the databases it is compared with: `/tmp` may be memory. */
export const home = path.resolve(import.meta.dirname, "../../../../.orrery/redis")

/** The end of what a program said, whichever way it ended. */
const run = (file: string, args: ReadonlyArray<string>, variables: Readonly<Record<string, string>> = {}) =>
  Effect.async<{ readonly failed: boolean; readonly output: string }>((resume) => {
    // Of our environment it is the proxy that matters, to apt-get.
    const env = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive", ...variables }
    const child = execFile(file, args, { cwd: "/", env, maxBuffer: 16 * 1024 * 1024 }, (error, out, err) => {
      resume(Effect.succeed({ failed: error !== null, output: `${out}${err}`.slice(-2_000) }))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const attempt = <A>(doing: string, step: () => Promise<A>): Effect.Effect<A, RedisServerFailed> =>
  Effect.tryPromise({
    try: step,
    catch: (cause) => new RedisServerFailed({ reason: "NoProgram", detail: `${doing}: ${String(cause)}`, cause })
  })

const isProgram = (file: string) => {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Where it is. */
export const locate = Effect.gen(function*() {
  const onPath = (process.env["PATH"] ?? "").split(path.delimiter).map((folder) => path.join(folder, "redis-server"))
  const file = onPath.find(isProgram)
  const found = file === undefined ? yield* unpacked : { file, libraries: "" }
  const { output } = yield* run(found.file, ["--version"], { LD_LIBRARY_PATH: found.libraries })
  const version = Option.fromNullable(/v=(\S+)/.exec(output)?.[1])
  if (Option.isSome(version)) return { ...found, version: version.value } satisfies RedisProgram
  return yield* new RedisServerFailed({ reason: "NoProgram", detail: `${found.file} does not run: ${output}` })
})

/** The package of the distribution, taken apart once. What it depends on comes with it, unless the system has it. */
const unpacked = Effect.gen(function*() {
  const folder = path.join(home, "program")
  const file = path.join(folder, "usr/bin/redis-server")
  if (!isProgram(file)) yield* download(folder)
  const libraries = yield* attempt("reading its libraries", async () => {
    const below = await fs.readdir(path.join(folder, "usr/lib")).catch(() => [])
    return below.map((name) => path.join(folder, "usr/lib", name)).join(":")
  })
  return { file, libraries }
})

const download = Effect.fnUntraced(function*(folder: string) {
  const draft = `${folder}.${process.pid}.${randomBytes(4).toString("hex")}`
  const archives = path.join(draft, "archives")
  yield* attempt("making its folder", () => fs.mkdir(path.join(archives, "partial"), { recursive: true }))
  // Takes no lock, as nothing is installed: another installation may be under way.
  const settings = ["Debug::NoLocking=true", `Dir::Cache::archives=${archives}/`, "APT::Sandbox::User="]
  const options = [...settings.map((setting) => `--option=${setting}`), "--download-only", "--no-install-recommends"]
  const fetch = run("apt-get", ["install", "-y", ...options, "redis-server"])
  const first = yield* fetch
  const { failed, output } = first.failed ? yield* Effect.zipRight(run("apt-get", ["update"]), fetch) : first
  const packages = yield* attempt("looking for what came", () => fs.readdir(archives))
  for (const name of packages.filter((each) => each.endsWith(".deb"))) {
    yield* run("dpkg-deb", ["-x", path.join(archives, name), path.join(draft, "program")])
  }
  // Fails when another process was faster, whose files are as good.
  yield* Effect.promise(() => fs.rename(path.join(draft, "program"), folder).catch(() => undefined))
  yield* Effect.promise(() => fs.rm(draft, { recursive: true, force: true }))
  if (isProgram(path.join(folder, "usr/bin/redis-server"))) return
  return yield* new RedisServerFailed({
    reason: "NoProgram",
    detail: "no redis-server on the PATH; install it (Debian: apt-get install redis-server, macOS: brew install redis, "
      + `Fedora: dnf install redis)${failed ? `; apt-get said: ${output}` : ""}`
  })
})
