/** What the operating system knows about processes and users. */
import { Effect, Option } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { readFileSync, readlinkSync, statSync } from "node:fs"
import { dirname } from "node:path"

export interface OsUser {
  readonly uid: number
  readonly gid: number
}

export interface OsProcess {
  /** Differs between two processes that had the same pid one after the other. */
  readonly started: string
  readonly command: string
  readonly folder: string
}

const attempt = <A>(read: () => A): Option.Option<A> => {
  try {
    return Option.some(read())
  } catch {
    return Option.none()
  }
}

/** `none` when there is no such process, or only its exit status is left (a zombie). */
export const find = (pid: number): Option.Option<OsProcess> =>
  process.platform === "linux" ? findInProc(pid) : findWithPs(pid)

const findInProc = (pid: number) =>
  attempt((): OsProcess => {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    // The second field is the name in brackets and may hold anything; count from behind it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    if (fields[0] === "Z" || fields[0] === "X") throw new Error("zombie")
    return {
      started: fields[19] ?? "",
      command: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "),
      folder: Option.getOrElse(attempt(() => readlinkSync(`/proc/${pid}/cwd`)), () => "")
    }
  })

const findWithPs = (pid: number) =>
  attempt((): OsProcess => {
    const line = execFileSync("ps", ["-o", "lstart=,stat=,command=", "-p", String(pid)], { encoding: "utf8" }).trim()
    const started = line.slice(0, 24)
    const [stat = "Z", ...command] = line.slice(24).trim().split(/\s+/)
    if (stat.startsWith("Z")) throw new Error("zombie")
    return { started, command: command.join(" "), folder: "" }
  })

/** Sends a signal; a process that is gone is no failure. */
export const signal = (pid: number, name: NodeJS.Signals) =>
  // 0 and negative numbers stand for whole process groups, ours included: never what is meant here.
  Number.isSafeInteger(pid) && pid > 1
    ? Effect.sync(() => attempt(() => process.kill(pid, name)))
    : Effect.dieMessage(`refused to signal pid ${pid}`)

/**
 * The user to become, as PostgreSQL refuses to run as root: who owns the existing data, else `postgres`, else
 * `nobody`. `none` when this process is not root.
 */
export const unprivilegedUser = (dataDir: string): Option.Option<OsUser> => {
  if (process.getuid?.() !== 0) return Option.none()
  const owner = attempt(() => statSync(dataDir))
  if (Option.isSome(owner) && owner.value.uid !== 0) {
    return Option.some({ uid: owner.value.uid, gid: owner.value.gid })
  }
  const accounts = Option.getOrElse(attempt(() => readFileSync("/etc/passwd", "utf8")), () => "").split("\n")
  for (const name of ["postgres", "nobody"]) {
    const [, , uid, gid] = accounts.find((line) => line.startsWith(`${name}:`))?.split(":") ?? []
    if (uid !== undefined && gid !== undefined) return Option.some({ uid: Number(uid), gid: Number(gid) })
  }
  return Option.some({ uid: 65534, gid: 65534 })
}

/** Whether `user` may pass through `folder` and everything above it. Looks at mode bits only. */
export const canEnter = (user: OsUser, folder: string): boolean => {
  const entry = attempt(() => statSync(folder))
  const above = dirname(folder)
  if (Option.isSome(entry)) {
    const { gid, mode, uid } = entry.value
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    if ((mode & bit) === 0) return false
  }
  return above === folder || canEnter(user, above)
}

/** Runs a program to its end; the last 64 kB of what it wrote, both streams. */
export const run = (
  file: string,
  args: ReadonlyArray<string>,
  user: Option.Option<OsUser>
): Effect.Effect<{ readonly code: number | null; readonly output: string }, unknown> =>
  Effect.async((resume) => {
    let output = ""
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString("utf8")).slice(-65_536)
    }
    const child = spawn(file, args, spawnOptions(user))
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    child.once("error", (error) => resume(Effect.fail(error)))
    child.once("close", (code) => resume(Effect.succeed({ code, output })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const spawnOptions = (user: Option.Option<OsUser>) => ({ ...plainSpawn, ...Option.getOrElse(user, () => ({})) })

/** Nothing of our environment reaches the server, and a folder everybody may enter. */
export const plainSpawn = {
  cwd: "/",
  env: { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
  stdio: ["ignore", "pipe", "pipe"] as ["ignore", "pipe", "pipe"]
}
