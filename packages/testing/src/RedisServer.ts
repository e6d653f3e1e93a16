/**
 * A real Redis as a child process, for measurements that need settings of their own. `REDIS_URL` is for users; this
 * server is ours alone:
 *
 *   program     `redis-server` of the PATH; on Debian and its kin else the distribution's package, unpacked into
 *               `.orrery/redis` and not installed: no service is started or enabled, no user is made
 *   private     listens on 127.0.0.1 only, on a free port; generated password, handed over on standard input
 *   no orphans  the server and its folder go with the scope; when this process is killed, a guard process ends both
 */
import { Deferred, Effect, Redacted, Schedule, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { closeSync, openSync, writeFileSync } from "node:fs"
import * as fs from "node:fs/promises"
import { connect, createServer } from "node:net"
import * as path from "node:path"
import { home, locate, type RedisProgram, RedisServerFailed } from "./internal/redisProgram.js"

export { RedisServerFailed }

export interface RedisServerOptions {
  /**
   * What an acknowledged write survives: `always` a crash of the machine, `everysec` one of the process and all but about
   * the last second of one of the machine. Absent: nothing is written, and nothing survives.
   */
  readonly appendfsync?: "everysec" | "always" | undefined
  /** More lines of its configuration, as `maxmemory 5mb`. */
  readonly settings?: ReadonlyArray<string>
  /** A port that was free a moment ago, so that a server can come back where it was. Default: a free one. */
  readonly port?: number
  /** Instead of a new one, for servers that know each other. */
  readonly password?: Redacted.Redacted<string>
  /** A node of a Redis Cluster, which knows no other yet. */
  readonly isClusterNode?: boolean
  /** No server but a sentinel, alone enough for a fail-over. It asks for no password. */
  readonly sentinelOf?: SentinelOf
}

export interface SentinelOf {
  /** What it calls the primary. */
  readonly name: string
  readonly port: number
  readonly password: Redacted.Redacted<string>
  /** Silence after which the primary counts as gone, ms. */
  readonly downAfterMs: number
}

export interface RedisServer {
  readonly url: Redacted.Redacted<string>
  readonly port: number
  /** By which the nodes of a Redis Cluster talk to each other. */
  readonly busPort: number | undefined
  readonly version: string
  readonly pid: number
  /** Before the scope closes. `SIGKILL` acts like a crash; 5 s after `SIGTERM` it follows by itself. Idempotent. */
  readonly stop: (signal: "SIGTERM" | "SIGKILL") => Effect.Effect<void>
}

const host = "127.0.0.1"
const readyWithin = "10 seconds"
const stopWithin = "5 seconds"
/** Another process may take the port between its choice and its use. */
const portTries = 3

/** Starts the server and waits until it answers. It is stopped, and its files removed, when the scope closes. */
export const start: (
  options: RedisServerOptions
) => Effect.Effect<RedisServer, RedisServerFailed, Scope.Scope> = Effect.fn("RedisServer.start")(function*(options) {
  const program = yield* locate
  const folder = yield* Effect.acquireRelease(
    attempt("making its folder", async () => {
      await fs.mkdir(home, { recursive: true })
      return fs.mkdtemp(path.join(home, "run-"))
    }),
    (made) => Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
  )
  const password = options.sentinelOf !== undefined
    ? ""
    : options.password === undefined
    ? randomBytes(24).toString("base64url")
    : Redacted.value(options.password)
  const launched = yield* launch(program, folder, password, options).pipe(Effect.retry({ times: portTries - 1 }))
  return {
    url: urlOf(password, launched.port),
    port: launched.port,
    busPort: launched.busPort,
    version: program.version,
    pid: launched.child.pid ?? 0,
    stop: (signal) => stop(launched, signal)
  }
})

/** One command on a connection of its own. Gives the reply as Redis sent it, and fails with its error. */
export const execute = (
  url: Redacted.Redacted<string>,
  ...words: ReadonlyArray<string>
): Effect.Effect<string, unknown> =>
  Effect.async<string, unknown>((resume) => {
    const { hostname, password, port } = new URL(Redacted.value(url))
    const login = password === "" ? [] : [["AUTH", password]]
    const socket = connect({ host: hostname, port: Number(port) })
    let answer = ""
    socket.setEncoding("utf8")
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.on("data", (text: string) => {
      answer += text
    })
    // It hangs up after QUIT, so that the end of the reply needs no parsing. A sentinel does not know QUIT, and hangs up as we do.
    socket.once("end", () => {
      const told = answer.replace(/(?:\+OK|-ERR unknown command 'QUIT'.*)\r\n$/, "")
      const reply = told.slice(login.length * "+OK\r\n".length).replace(/\r\n$/, "")
      const error = /^-(.*)$/m.exec(told)
      resume(error === null ? Effect.succeed(reply) : Effect.fail(new Error(error[1])))
    })
    for (const command of [...login, words, ["QUIT"]]) {
      socket.write(
        `*${command.length}\r\n${command.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`
      )
    }
    if (password === "") socket.end()
    return Effect.sync(() => socket.destroy())
  })

const urlOf = (password: string, port: number) => Redacted.make(`redis://:${password}@${host}:${port}`)

const attempt = <A>(doing: string, run: () => Promise<A> | A): Effect.Effect<A, RedisServerFailed> =>
  Effect.tryPromise({
    try: async () => run(),
    catch: (cause) => new RedisServerFailed({ reason: "StartFailed", detail: `${doing}: ${String(cause)}`, cause })
  })

interface Launched {
  readonly child: ChildProcess
  readonly guard: ChildProcess
  readonly port: number
  readonly busPort: number | undefined
  readonly exited: Deferred.Deferred<void>
}

const launch = Effect.fnUntraced(
  function*(program: RedisProgram, folder: string, password: string, options: RedisServerOptions) {
    const port = options.port ?? (yield* freePort)
    const busPort = options.isClusterNode === true ? yield* freePort : undefined
    const config = [
      ...commonConfig(folder, port),
      ...(options.sentinelOf === undefined ? serverConfig(password, options) : sentinelConfig(options.sentinelOf)),
      ...(busPort === undefined ? [] : clusterConfig(busPort)),
      ...options.settings ?? []
    ]
    const logFile = path.join(folder, "redis.log")
    const launched = yield* Effect.acquireRelease(
      spawnServer(program, { folder, logFile, port, busPort, config, isSentinel: options.sentinelOf !== undefined }),
      (running) => stop(running, "SIGTERM")
    )
    const ended = Deferred.await(launched.exited).pipe(
      Effect.zipRight(attempt("reading its log", () => fs.readFile(logFile, "utf8"))),
      Effect.flatMap((log) =>
        new RedisServerFailed({ reason: "StartFailed", detail: `it ended: ${log.slice(-2_000)}` })
      )
    )
    yield* execute(urlOf(password, port), "PING").pipe(
      Effect.retry(Schedule.spaced("20 millis")),
      Effect.timeoutFail({
        duration: readyWithin,
        onTimeout: () => new RedisServerFailed({ reason: "StartFailed", detail: `no answer within ${readyWithin}` })
      }),
      Effect.raceFirst(ended),
      Effect.mapError((cause) =>
        cause instanceof RedisServerFailed
          ? cause
          : new RedisServerFailed({ reason: "StartFailed", detail: String(cause), cause })
      )
    )
    return launched
  }
)

const commonConfig = (folder: string, port: number) => [
  `bind ${host}`,
  `port ${port}`,
  `dir "${folder}"`,
  `pidfile "${path.join(folder, "redis.pid")}"`,
  "daemonize no"
]

const serverConfig = (password: string, { appendfsync }: RedisServerOptions) => [
  `requirepass ${password}`,
  "save \"\"",
  appendfsync === undefined ? "appendonly no" : `appendonly yes\nappendfsync ${appendfsync}`
]

const clusterConfig = (busPort: number) => [
  "cluster-enabled yes",
  `cluster-port ${busPort}`,
  "cluster-config-file nodes.conf",
  "cluster-node-timeout 2000"
]

const sentinelConfig = ({ downAfterMs, name, password, port }: SentinelOf) => [
  `sentinel monitor ${name} ${host} ${port} 1`,
  `sentinel auth-pass ${name} ${Redacted.value(password)}`,
  `sentinel down-after-milliseconds ${name} ${downAfterMs}`,
  `sentinel failover-timeout ${name} 5000`
]

/**
 * Outlives us on purpose: waits until our end of its standard input closes, however we end. The pid file is asked
 * first, as the pid may by then belong to another process; the pause lets a server write it that has just begun.
 */
const guardScript = `read -r _
sleep 1
if [ "$(head -n 1 "$2/redis.pid" 2>/dev/null)" = "$1" ]; then
  kill -TERM "$1"
  for second in 1 2 3 4 5; do kill -0 "$1" 2>/dev/null || break; sleep 1; done
  kill -KILL "$1" 2>/dev/null
fi
rm -rf "$2"`

/** Nothing of our environment reaches the server. Its own session, so that Ctrl-C reaches us and not the server. */
const plainSpawn = (libraries: string) => ({
  cwd: "/",
  env: { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C", LD_LIBRARY_PATH: libraries },
  detached: true
})

interface Spawned {
  readonly folder: string
  readonly logFile: string
  readonly port: number
  readonly busPort: number | undefined
  readonly config: ReadonlyArray<string>
  readonly isSentinel: boolean
}

const spawnServer = Effect.fnUntraced(
  function*(program: RedisProgram, { busPort, config, folder, isSentinel, logFile, port }: Spawned) {
    const exited = yield* Deferred.make<void>()
    const text = config.join("\n")
    const child = yield* attempt("starting it", () => {
      const log = openSync(logFile, "a", 0o600)
      // A sentinel writes down what it learns, so its configuration must be a file.
      const file = path.join(folder, "sentinel.conf")
      if (isSentinel) writeFileSync(file, text, { mode: 0o600 })
      const words = isSentinel ? [file, "--sentinel"] : ["-"]
      try {
        return spawn(program.file, words, { ...plainSpawn(program.libraries), stdio: ["pipe", log, log] })
      } finally {
        closeSync(log)
      }
    })
    child.once("error", () => Deferred.unsafeDone(exited, Effect.void))
    child.once("exit", () => Deferred.unsafeDone(exited, Effect.void))
    child.stdin?.once("error", () => undefined)
    child.stdin?.end(isSentinel ? "" : text)
    const guard = spawn("/bin/sh", ["-c", guardScript, "orrery-redis-guard", String(child.pid ?? 0), folder], {
      ...plainSpawn(""),
      stdio: ["pipe", "ignore", "ignore"]
    })
    guard.once("error", () => undefined)
    guard.stdin.once("error", () => undefined)
    guard.unref()
    return { child, guard, port, busPort, exited } satisfies Launched
  }
)

const stop = Effect.fn("RedisServer.stop")(function*({ child, exited, guard }: Launched, first: "SIGTERM" | "SIGKILL") {
  for (const signal of [first, "SIGKILL"] as const) {
    if (yield* Deferred.isDone(exited)) break
    child.kill(signal)
    yield* Deferred.await(exited).pipe(Effect.timeoutOption(stopWithin))
  }
  guard.kill("SIGKILL")
})

const freePort = Effect.async<number, RedisServerFailed>((resume) => {
  const probe = createServer()
  probe.once(
    "error",
    (cause) => resume(new RedisServerFailed({ reason: "StartFailed", detail: `no free port on ${host}`, cause }))
  )
  probe.listen(0, host, () => {
    const address = probe.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    probe.close(() => resume(Effect.succeed(port)))
  })
})
