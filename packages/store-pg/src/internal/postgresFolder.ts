/**
 * The data folder of an embedded server and the files next to it:
 *
 *   <dataDir>            the database
 *   <dataDir>.owner      which process drives the server: pid and start time
 *   <dataDir>.password   mode 0600
 *   <dataDir>.port       the last port
 *   <dataDir>.log        what the server wrote
 *
 * `open` takes the folder for this process. A process that was killed leaves its `.owner` file and perhaps its server;
 * the file names a process that is gone (or a pid that now is another one), so the next `open` takes over and `recover`
 * ends the orphan. A crash in the middle of initdb leaves `<dataDir>.draft`, which is thrown away.
 */
import { Duration, Effect, Option, Schedule } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { EmbeddedPostgresFailed, fileFailure, outputFailure } from "./EmbeddedPostgresFailed.js"
import * as OsProcess from "./osProcess.js"
import { ownFolder } from "./ownFolder.js"
import type { PostgresBinaries } from "./postgresBinaries.js"

export interface PostgresFolder {
  readonly dataDir: string
  readonly user: Option.Option<OsProcess.OsUser>
}

/** Tells our servers from others in a list of processes. */
export const serverMark = "cluster_name=orrery"

/** A new cluster takes 40 MB, its first write-ahead segments and some growth come on top. */
const freeBytesMin = 200 * 1024 * 1024

/** Takes the folder until the scope closes; fails with `InUse` while another living process has it. */
export const open = Effect.fn("postgresFolder.open")(function*(wanted: string) {
  const user = OsProcess.unprivilegedUser(wanted)
  const failed = fileFailure(wanted, "preparing the data folder")
  yield* Effect.tryPromise({ try: () => fs.mkdir(path.dirname(wanted), { recursive: true }), catch: failed })
  const dataDir = yield* reachable(wanted, user)
  const disk = yield* Effect.tryPromise({ try: () => fs.statfs(path.dirname(dataDir)), catch: failed })
  if (disk.bavail * disk.bsize < freeBytesMin) {
    return yield* new EmbeddedPostgresFailed({
      reason: "NoSpace",
      dataDir,
      detail: `less than ${freeBytesMin / 1024 / 1024} MB are free on its disk; free some space`
    })
  }
  yield* Effect.acquireRelease(own(dataDir), () => disown(dataDir))
  return { dataDir, user } satisfies PostgresFolder
})

const reachable = Effect.fnUntraced(function*(wanted: string, user: Option.Option<OsProcess.OsUser>) {
  if (Option.isNone(user) || OsProcess.canEnter(user.value, path.dirname(wanted))) return wanted
  const home = yield* ownFolder(wanted, wanted)
  const dataDir = path.join(home, path.basename(wanted))
  yield* Effect.logWarning(
    `PostgreSQL cannot run as root and its user cannot enter ${wanted}: the data is in ${dataDir}`
  )
  return dataDir
})

const me = () => ({
  pid: process.pid,
  started: Option.match(OsProcess.find(process.pid), { onNone: () => "", onSome: ({ started }) => started })
})

const ownerOf = (dataDir: string) =>
  Effect.tryPromise(() => fs.readFile(`${dataDir}.owner`, "utf8")).pipe(
    Effect.map((text) => JSON.parse(text) as ReturnType<typeof me>),
    Effect.option
  )

const own = (dataDir: string): Effect.Effect<void, EmbeddedPostgresFailed> => {
  const file = `${dataDir}.owner`
  const draft = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`
  const take = Effect.tryPromise({
    try: async () => {
      await fs.writeFile(draft, JSON.stringify(me()))
      // A link appears complete or not at all, and never replaces another one.
      await fs.link(draft, file).finally(() => fs.rm(draft, { force: true }))
    },
    catch: fileFailure(dataDir, `writing ${file}`)
  })
  const evict = Effect.gen(function*() {
    const owner = yield* ownerOf(dataDir)
    const alive = Option.filter(
      owner,
      ({ pid, started }) => Option.exists(OsProcess.find(pid), (found) => found.started === started)
    )
    if (Option.isSome(alive)) {
      return yield* new EmbeddedPostgresFailed({
        reason: "InUse",
        dataDir,
        detail: `process ${alive.value.pid} already runs this server; stop that process or choose another folder`
      })
    }
    yield* Effect.tryPromise(() => fs.rm(file, { force: true })).pipe(Effect.ignore)
  })
  return Effect.catchAll(take, () => Effect.zipRight(evict, take))
}

const disown = (dataDir: string) => Effect.promise(() => fs.rm(`${dataDir}.owner`, { force: true }))

const postmasterPid = (dataDir: string) =>
  Effect.promise(() => fs.readFile(path.join(dataDir, "postmaster.pid"), "utf8").catch(() => "")).pipe(
    Effect.map((text) => Option.liftPredicate(Number.parseInt(text, 10), (pid) => pid > 0))
  )

/** Ends a server that outlived its process, and removes a pid file that names nobody or somebody else. */
export const recover = Effect.fn("postgresFolder.recover")(function*({ dataDir }: PostgresFolder) {
  const pid = yield* postmasterPid(dataDir)
  if (Option.isNone(pid)) return
  const found = Option.filter(
    OsProcess.find(pid.value),
    ({ command, folder }) => folder === dataDir || (command.includes("postgres") && command.includes(dataDir))
  )
  const owner = yield* ownerOf(dataDir)
  const ours = Option.exists(found, ({ command }) => command.includes(serverMark))
    && Option.exists(owner, (value) => value.pid === process.pid)
  if (Option.isSome(found) && !ours) {
    return yield* new EmbeddedPostgresFailed({
      reason: "InUse",
      dataDir,
      detail: `PostgreSQL process ${pid.value} runs on this folder and is not ours to stop; stop it first`
    })
  }
  if (Option.isSome(found)) {
    yield* Effect.logInfo(`ending PostgreSQL process ${pid.value}, left over in ${dataDir}`)
    yield* endOrphan(pid.value)
  } else {
    yield* Effect.promise(() => fs.rm(path.join(dataDir, "postmaster.pid"), { force: true }))
  }
})

const endOrphan = Effect.fnUntraced(function*(pid: number) {
  for (const name of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    yield* OsProcess.signal(pid, name)
    const gone = yield* Effect.sync(() => Option.isNone(OsProcess.find(pid))).pipe(
      Effect.repeat({ until: (gone) => gone, schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo("5 seconds")) }),
      Effect.map(() => Option.isNone(OsProcess.find(pid)))
    )
    if (gone) return
  }
})

/** Creates the database cluster unless there is one; gives its password. */
export const initialise = Effect.fn("postgresFolder.initialise")(
  function*({ dataDir, user }: PostgresFolder, binaries: PostgresBinaries) {
    const passwordFile = `${dataDir}.password`
    const read = Effect.promise(() => fs.readFile(passwordFile, "utf8").then((text) => text.trim(), () => ""))
    const initialised = yield* Effect.promise(() => fs.readdir(dataDir).then((names) => names.length > 0, () => false))
    const known = yield* read
    if (initialised && known !== "") return known
    if (initialised) {
      return yield* new EmbeddedPostgresFailed({
        reason: "Unusable",
        dataDir,
        detail: `${passwordFile} is missing, so nobody can log in; restore it, or delete the data folder`
      })
    }
    const password = known === "" ? randomBytes(24).toString("base64url") : known
    const failed = fileFailure(dataDir, "creating the database files")
    const draft = `${dataDir}.draft`
    const handover = `${dataDir}.handover`
    yield* Effect.tryPromise({
      try: async () => {
        await fs.rm(draft, { recursive: true, force: true })
        await fs.rm(handover, { force: true })
        await fs.writeFile(passwordFile, password, { mode: 0o600 })
        await fs.mkdir(draft, { mode: 0o700 })
        // initdb reads the password as its own user, who must not read ours.
        await fs.writeFile(handover, password, { mode: 0o600, flag: "wx" })
        if (Option.isSome(user)) {
          await fs.chown(draft, user.value.uid, user.value.gid)
          await fs.chown(handover, user.value.uid, user.value.gid)
        }
      },
      catch: failed
    })
    const result = yield* OsProcess.run(binaries.initdb, [
      ...["-D", draft, "-U", "orrery", `--pwfile=${handover}`, "--auth=scram-sha-256"],
      ...["--encoding=UTF8", "--locale=C", "--data-checksums"]
    ], user).pipe(
      Effect.mapError(failed),
      Effect.ensuring(Effect.promise(() => fs.rm(handover, { force: true }))),
      Effect.timeoutFail({
        duration: Duration.minutes(2),
        onTimeout: () => outputFailure(dataDir, "initdb", "no end after 2 minutes")
      })
    )
    if (result.code !== 0) return yield* outputFailure(dataDir, "initdb", result.output)
    // The folder gets its name only when it is whole. An empty folder is replaced.
    yield* Effect.tryPromise({ try: () => fs.rename(draft, dataDir), catch: failed })
    return password
  }
)

/** The port of the last time. */
export const lastPort = ({ dataDir }: PostgresFolder) =>
  Effect.promise(() => fs.readFile(`${dataDir}.port`, "utf8").catch(() => "")).pipe(
    Effect.map((text) => Option.liftPredicate(Number.parseInt(text, 10), (port) => port > 0 && port < 65_536))
  )

/** Best effort: without it the next start takes another port. */
export const savePort = ({ dataDir }: PostgresFolder, port: number) =>
  Effect.tryPromise(() => fs.writeFile(`${dataDir}.port`, String(port))).pipe(Effect.ignore)
