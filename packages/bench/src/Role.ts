/**
 * A process that plays a role of a system, as the main process holds it: asked over its channel, ended with its scope,
 * killed by its own handle only.
 */
import { Data, Deferred, Duration, Effect, type Scope } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { CallName, Calls, Message } from "./Calls.js"

/** A process of a system ended, or a call of its driver failed or took too long. */
export class RoleFailed extends Data.TaggedError("RoleFailed")<{ readonly role: string; readonly reason: string }> {
  override get message() {
    return `${this.role}: ${this.reason}`
  }
}

export interface Role {
  readonly name: string
  readonly pid: number
  /** Fails when the driver does, when the process ends, and after `within`. */
  readonly ask: <Name extends CallName>(
    name: Name,
    input: Calls[Name]["in"],
    within?: Duration.DurationInput
  ) => Effect.Effect<Calls[Name]["out"], RoleFailed>
  /** Different jobs that have started in this process, as last told. */
  readonly started: () => number
  /** Until that many have. */
  readonly awaitStarted: (count: number) => Effect.Effect<void>
  /** Fails when the process ends. */
  readonly failed: Effect.Effect<never, RoleFailed>
  readonly kill: Effect.Effect<void>
  /** Tells the driver to close, then ends the process. Idempotent; also when the scope closes. */
  readonly close: Effect.Effect<void>
}

/** Larger than any single step of a workload at its full size. */
const askWithin = Duration.minutes(5)
/** A node hands its queues over, a pool ends its connections; then the process is killed. */
const closeWithin = Duration.seconds(15)
/** Last output, kept to tell why a process ended. */
const tailCharsMax = 2_000

interface State {
  readonly name: string
  readonly child: ChildProcess
  readonly pending: Map<number, (effect: Effect.Effect<never, RoleFailed> | Effect.Effect<unknown>) => void>
  readonly ended: Deferred.Deferred<RoleFailed>
  readonly watchers: Set<() => void>
  asked: number
  started: number
  tail: string
  isEnded: boolean
}

/** `program`: as `compile` gave it. Output goes to `onOutput` (a log file: the figures own standard output). */
export const start = (options: {
  readonly program: string
  readonly name: string
  readonly onOutput: (text: string) => void
}): Effect.Effect<Role, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.map(Deferred.make<RoleFailed>(), (ended) => spawn(options, ended)), (role) => role.close)

const spawn = (
  options: { readonly program: string; readonly name: string; readonly onOutput: (text: string) => void },
  ended: Deferred.Deferred<RoleFailed>
): Role => {
  // A process group of its own: Ctrl-C reaches the main process only, which then ends the roles.
  const child = fork(options.program, [], { stdio: ["ignore", "pipe", "pipe", "ipc"], detached: true })
  const state: State = {
    name: options.name,
    child,
    pending: new Map(),
    ended,
    watchers: new Set(),
    asked: 0,
    started: 0,
    tail: "",
    isEnded: false
  }
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      state.tail = (state.tail + text).slice(-tailCharsMax)
      options.onOutput(text.replace(/^(?=.)/gm, `[${options.name}] `))
    })
  }
  child.on("message", (message: Message) => receive(state, message))
  child.on("error", (error) => end(state, error.message))
  child.once("exit", (code, signal) => end(state, `ended with ${signal ?? `code ${code}`}`))
  return {
    name: options.name,
    pid: child.pid ?? 0,
    ask: (name, input, within = askWithin) => ask(state, name, input, within),
    started: () => state.started,
    awaitStarted: (count) => awaitStarted(state, count),
    failed: Effect.flatMap(Deferred.await(ended), Effect.fail),
    kill: Effect.zipRight(Effect.sync(() => child.kill("SIGKILL")), Effect.asVoid(Deferred.await(ended))),
    close: close(state)
  }
}

const receive = (state: State, message: Message): void => {
  if (message.tag === "started") {
    state.started = message.count
    for (const look of state.watchers) look()
    return
  }
  const resume = state.pending.get(message.id)
  state.pending.delete(message.id)
  resume?.(
    message.tag === "answer"
      ? Effect.succeed(message.out)
      : Effect.fail(new RoleFailed({ role: state.name, reason: message.reason }))
  )
}

const end = (state: State, reason: string): void => {
  state.isEnded = true
  const failure = new RoleFailed({ role: state.name, reason: `${reason}\n${state.tail}`.trim() })
  for (const resume of state.pending.values()) resume(Effect.fail(failure))
  state.pending.clear()
  Effect.runFork(Deferred.succeed(state.ended, failure))
}

const ask = <Name extends CallName>(
  state: State,
  name: Name,
  input: Calls[Name]["in"],
  within: Duration.DurationInput
): Effect.Effect<Calls[Name]["out"], RoleFailed> =>
  Effect.async<unknown, RoleFailed>((resume) => {
    if (state.isEnded) {
      return resume(new RoleFailed({ role: state.name, reason: `the process has ended\n${state.tail}`.trim() }))
    }
    const id = ++state.asked
    state.pending.set(id, resume)
    state.child.send({ id, name, in: input })
    return Effect.sync(() => void state.pending.delete(id))
  }).pipe(
    Effect.map((out) => out as Calls[Name]["out"]),
    Effect.timeoutFail({
      duration: within,
      onTimeout: () =>
        new RoleFailed({ role: state.name, reason: `no answer to ${name} within ${Duration.format(within)}` })
    })
  )

const awaitStarted = (state: State, count: number): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const look = () => {
      if (state.started < count) return
      state.watchers.delete(look)
      resume(Effect.void)
    }
    state.watchers.add(look)
    look()
    return Effect.sync(() => void state.watchers.delete(look))
  })

const close = (state: State): Effect.Effect<void> =>
  Effect.suspend(() =>
    state.isEnded ? Effect.void : ask(state, "close", null, closeWithin).pipe(
      Effect.ignore,
      Effect.zipRight(Effect.sync(() => state.child.kill("SIGKILL"))),
      Effect.zipRight(Deferred.await(state.ended)),
      Effect.asVoid
    )
  )

/** The program of a driver: `rolePlayer.ts` with the driver in it. Compiled when a source changed. */
export const compile = (driver: string): Effect.Effect<string, RoleFailed> =>
  Effect.tryPromise({
    try: async () => {
      // Plain JavaScript outside of this program, so that it finds the sources.
      const { compile } = await import(new URL("../../cli/compile.mjs", import.meta.url).href) as Compiler
      return compile(source("rolePlayer"), source(`systems/${driver}`))
    },
    catch: (cause) => new RoleFailed({ role: driver, reason: cause instanceof Error ? cause.message : String(cause) })
  })

interface Compiler {
  readonly compile: (entry: string, handlers: string) => Promise<string>
}

const source = (name: string): string => fileURLToPath(new URL(`./${name}.ts`, import.meta.url))
