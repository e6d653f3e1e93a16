/**
 * Keeps one child process running: starts it, learns from its ready line where it listens, starts it again when it
 * ends unexpectedly, and ends it with the scope.
 *
 *   no orphans   a child has a channel to its supervisor and ends when that closes (`supervised.ts`), so it does not
 *                survive a supervisor that was killed; it has its own process group, so that Ctrl-C reaches only us
 *   no secrets   configuration goes by environment, never by arguments: those are seen by every user of a machine
 *   own only     signals go to the process we started, by its handle
 *   bounded      the last lines of output, the last events, the pace of restarts, the time to stop
 */
import {
  Clock,
  Data,
  Deferred,
  Duration,
  Effect,
  FiberId,
  Option,
  PubSub,
  Schedule,
  Schema,
  type Scope,
  Stream
} from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { exitCode } from "./ExitCode.js"

/** What a process prints on its standard output, as one line of JSON, when it can be used. */
export const Ready = Schema.Struct({
  event: Schema.Literal("ready"),
  nodeId: Schema.String,
  dataAddress: Schema.String,
  runnerAddress: Schema.String,
  pid: Schema.Int
})
export type Ready = typeof Ready.Type

const decodeReady = Schema.decodeUnknownOption(Schema.parseJson(Ready))

/** Pause before a child that ended is started again: 100 ms doubling to 5 s. Begins anew after a good life. */
export const restartPause = Schedule.exponential("100 millis").pipe(Schedule.union(Schedule.spaced("5 seconds")))
/** A child that was ready and lived this long had a good life. */
const goodLifeMs = 10_000
/** After SIGTERM, then SIGKILL. Above the longest drain of a node by default (10 s + 2 s). */
export const stopWithinDefault: Duration.DurationInput = "15 seconds"
/** Last lines of standard error, kept to tell why a child ended. */
const tailLinesMax = 40
const lineLengthMax = 64 * 1024
/** Events that a late reader still sees. */
const eventsReplayed = 64
/** A child may leave its pipes to others; its last words are not waited for longer. */
const lastWords = Duration.millis(200)

export type SupervisorEvent =
  | { readonly _tag: "started"; readonly pid: number }
  | { readonly _tag: "ready"; readonly ready: Ready }
  | { readonly _tag: "exited"; readonly pid: number; readonly code: number | null; readonly signal: string | null }
  /** It will not be started again: as asked, or because its configuration is wrong. */
  | { readonly _tag: "ended"; readonly reason: string }

/** The child has ended for good. */
export class ChildEnded extends Data.TaggedError("ChildEnded")<{
  readonly name: string
  readonly code: number | null
  readonly reason: string
  /** Its last lines of standard error. */
  readonly output: string
}> {
  override get message() {
    return `${this.name} ended: ${this.reason}${this.output === "" ? "" : `\n${this.output}`}`
  }

  /** Ours is the child's. */
  get exitCode() {
    return this.code ?? exitCode.unavailable
  }
}

export interface SupervisorOptions {
  /** Run as `node SCRIPT ARGS`. */
  readonly script: string
  /** Arguments of Node itself, before the script. */
  readonly nodeArgs?: ReadonlyArray<string>
  readonly args?: ReadonlyArray<string>
  /** Added to ours. May hold secrets. */
  readonly env?: Readonly<Record<string, string>>
  /** More, for the n-th process, counted from 0. */
  readonly envOf?: (start: number) => Readonly<Record<string, string>>
  /** Pauses between its lives. Default `restartPause`. */
  readonly restartPause?: Schedule.Schedule<unknown>
  /** Default true. A child that ends with code 1 before it was ready is not started again: it would fail again. */
  readonly restart?: boolean
  readonly name?: string
  readonly cwd?: string
  /** A line the child wrote, its ready line excepted. Default: dropped. */
  readonly onLine?: (line: string, from: "stdout" | "stderr") => void
  readonly stopWithin?: Duration.DurationInput
}

export interface Supervised {
  readonly name: string
  /** Of the process that lives now; `undefined` between two. */
  readonly pid: Effect.Effect<number | undefined>
  /** Of the process that lives now, or else the next, once it is ready. */
  readonly ready: Effect.Effect<Ready, ChildEnded>
  /** The latest, of a process that may have died since. */
  readonly lastReady: Effect.Effect<Ready | undefined>
  /** False: there was no process to send it to. A process that dies of it is started again. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<boolean>
  /** Its last lines of standard error, also of earlier lives. */
  readonly output: Effect.Effect<string>
  /** The last few, then all from now on. Never ends. */
  readonly events: Stream.Stream<SupervisorEvent>
  /** SIGTERM, and SIGKILL after `stopWithin`. May be called twice; the scope does it too. */
  readonly stop: Effect.Effect<void>
  /** Answers when the child has ended for good. */
  readonly ended: Effect.Effect<ChildEnded>
}

interface Exited {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** It could not be started at all. */
  readonly error?: Error
}

/** One process, from spawn to exit. */
interface Life {
  readonly child: ChildProcess
  readonly startedAt: number
  readonly exited: Deferred.Deferred<Exited>
  /** All it wrote has been read. */
  readonly closed: Deferred.Deferred<void>
  wasReady: boolean
  isForgotten: boolean
}

interface State {
  readonly name: string
  readonly options: SupervisorOptions
  readonly events: PubSub.PubSub<SupervisorEvent>
  readonly stopRequested: Deferred.Deferred<void>
  readonly ended: Deferred.Deferred<ChildEnded>
  life: Life | undefined
  /** Processes until now. */
  starts: number
  /** A new one for each process. */
  ready: Deferred.Deferred<Ready, ChildEnded>
  lastReady: Ready | undefined
  stopping: boolean
  readonly tail: Array<string>
}

/** Starts the child; does not wait for it to be ready. */
export const start = (options: SupervisorOptions): Effect.Effect<Supervised, never, Scope.Scope> =>
  Effect.gen(function*() {
    const state: State = {
      name: options.name ?? "child",
      options,
      events: yield* PubSub.sliding<SupervisorEvent>({ capacity: eventsReplayed, replay: eventsReplayed }),
      stopRequested: yield* Deferred.make<void>(),
      ended: yield* Deferred.make<ChildEnded>(),
      life: undefined,
      starts: 0,
      ready: Deferred.unsafeMake<Ready, ChildEnded>(FiberId.none),
      lastReady: undefined,
      stopping: false,
      tail: []
    }
    yield* keep(state, yield* Schedule.driver(options.restartPause ?? restartPause)).pipe(Effect.forkScoped)
    const stop = stopChild(state)
    yield* Effect.addFinalizer(() => stop)
    return {
      name: state.name,
      pid: Effect.sync(() => state.life?.child.pid),
      ready: Effect.suspend(() => Deferred.await(state.ready)),
      lastReady: Effect.sync(() => state.lastReady),
      kill: (signal) =>
        Effect.sync(() => {
          if (state.life === undefined) return false
          if (signal === "SIGKILL") forgetReady(state, state.life)
          return state.life.child.kill(signal)
        }),
      output: Effect.sync(() => state.tail.join("\n")),
      events: Stream.fromPubSub(state.events),
      stop,
      ended: Deferred.await(state.ended)
    }
  })

const keep = Effect.fnUntraced(function*(state: State, pause: Schedule.ScheduleDriver<unknown>) {
  for (;;) {
    const now = yield* Clock.currentTimeMillis
    const life = launch(state, now)
    if (life === undefined) return yield* end(state, { code: null, signal: null }, "stopped")
    const exited = yield* Deferred.await(life.exited)
    yield* Effect.timeoutOption(Deferred.await(life.closed), lastWords)
    yield* PubSub.publish(state.events, { _tag: "exited", pid: life.child.pid ?? 0, ...exited })
    const reason = finalReason(state, life, exited)
    if (reason !== undefined) return yield* end(state, exited, reason)
    if (life.wasReady && (yield* Clock.currentTimeMillis) - now >= goodLifeMs) yield* pause.reset
    if (life.wasReady && exited.code === exitCode.restart) continue
    yield* Effect.raceFirst(Effect.ignore(pause.next(undefined)), Deferred.await(state.stopRequested))
  }
})

/** Why the child is not started again; `undefined`: it is. */
const finalReason = (state: State, life: Life, exited: Exited): string | undefined => {
  if (state.stopping) return "stopped"
  if (exited.error !== undefined) return exited.error.message
  const how = exited.code === null ? `by ${exited.signal}` : `with code ${exited.code}`
  if (state.options.restart === false) return `exited ${how}`
  if (exited.code === exitCode.usage && !life.wasReady) return `refused to start (code ${exited.code})`
  return undefined
}

const end = Effect.fnUntraced(function*(state: State, exited: Exited, reason: string) {
  const ended = new ChildEnded({ name: state.name, code: exited.code, reason, output: state.tail.join("\n") })
  yield* Deferred.fail(state.ready, ended)
  yield* PubSub.publish(state.events, { _tag: "ended", reason })
  yield* Deferred.succeed(state.ended, ended)
})

/** So that nobody who asks for `ready` from now on is told of a process that is dead. */
const forgetReady = (state: State, life: Life): void => {
  if (life.wasReady && !life.isForgotten) state.ready = Deferred.unsafeMake<Ready, ChildEnded>(FiberId.none)
  life.isForgotten = true
}

const stopChild = (state: State): Effect.Effect<void> =>
  Effect.gen(function*() {
    state.stopping = true
    yield* Deferred.succeed(state.stopRequested, undefined)
    const child = state.life?.child
    child?.kill("SIGTERM")
    const ended = Deferred.await(state.ended)
    const inTime = yield* Effect.timeoutOption(ended, state.options.stopWithin ?? stopWithinDefault)
    if (Option.isSome(inTime)) return
    // Not graceful, but it ends: also a process that is stopped (SIGSTOP).
    child?.kill("SIGKILL")
    yield* ended
  })

/** Synchronous, so that a stop comes either before it or finds the child. */
const launch = (state: State, startedAt: number): Life | undefined => {
  if (state.stopping) return undefined
  const { args = [], cwd, env, envOf, nodeArgs = [], script } = state.options
  const child = spawn(process.execPath, [...nodeArgs, script, ...args], {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, ...env, ...envOf?.(state.starts++) },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    detached: true
  })
  const life: Life = {
    child,
    startedAt,
    exited: Deferred.unsafeMake<Exited>(FiberId.none),
    closed: Deferred.unsafeMake<void>(FiberId.none),
    wasReady: false,
    isForgotten: false
  }
  state.life = life
  const exited = (how: Exited) => {
    if (state.life !== life) return
    state.life = undefined
    forgetReady(state, life)
    Deferred.unsafeDone(life.exited, Effect.succeed(how))
  }
  child.once("error", (error) => {
    if (child.pid === undefined) exited({ code: null, signal: null, error })
  })
  child.once("exit", (code, signal) => exited({ code, signal }))
  child.once("close", () => Deferred.unsafeDone(life.closed, Effect.void))
  if (child.pid !== undefined) state.events.unsafeOffer({ _tag: "started", pid: child.pid })
  readLines(child.stdout!, (line) => {
    const ready = life.wasReady ? Option.none<Ready>() : decodeReady(line)
    if (Option.isNone(ready) || life.isForgotten) return state.options.onLine?.(line, "stdout")
    life.wasReady = true
    state.lastReady = ready.value
    Deferred.unsafeDone(state.ready, Effect.succeed(ready.value))
    state.events.unsafeOffer({ _tag: "ready", ready: ready.value })
  })
  readLines(child.stderr!, (line) => {
    state.tail.push(line)
    if (state.tail.length > tailLinesMax) state.tail.shift()
    state.options.onLine?.(line, "stderr")
  })
  return life
}

const readLines = (from: NodeJS.ReadableStream, read: (line: string) => void): void => {
  createInterface({ input: from, crlfDelay: Infinity }).on("line", (line) => read(line.slice(0, lineLengthMax)))
}
