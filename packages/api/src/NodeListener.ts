/**
 * Accepts the connections of a node's data plane: Effect RPC as a `SocketServer` for its protocol, and beside it the
 * calls that runs travel in, answered by `FrameHandlers`.
 *
 * A connection may have `callsMax` such calls under way; beyond it, it is not read, so that the caller waits in its
 * socket. A message that cannot be read costs its sender the connection, arguments that are refused the call. What all
 * connections may take together is watched by a `ConnectionGuard`.
 */
import { type Socket, SocketServer } from "@effect/platform"
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { PartitionName } from "@orrery/core/PartitionStore"
import type { Hello, OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Cause, Effect, type Exit, FiberSet, Layer, Option, type Scope } from "effect"
import * as Net from "node:net"
import { ConnectionGuard, guardDefaults, type GuardOptions } from "./ConnectionGuard.js"
import * as FrameCalls from "./FrameCalls.js"
import type { OutcomeFrame, RequestFrame, ToWorkerFrame, UnknownFrameVersion } from "./Frames.js"
import type { EnqueueAnswer, NotOwner, SessionUnknown } from "./NodeRpcs.js"
import { kinds, Wire } from "./Wire.js"
import * as WireSocket from "./WireSocket.js"

/** Frame calls of one connection under way. */
const callsMax = 1_024

/** The other end of a connection, for as long as it lasts. */
export interface Caller {
  readonly push: (frame: ToWorkerFrame) => void
  /** Called when the connection has ended; at once when it has already. */
  readonly onClosed: (closed: () => void) => void
}

export interface FrameHandlers {
  readonly enqueue: (rows: RequestFrame) => Effect.Effect<EnqueueAnswer, UnknownFrameVersion | ClusterUnavailable>
  readonly forwardEnqueue: (
    partition: PartitionName,
    rows: RequestFrame
  ) => Effect.Effect<EnqueueAnswer, NotOwner | UnknownFrameVersion | ClusterUnavailable>
  readonly attach: (hello: Hello, caller: Caller) => Effect.Effect<FrameCalls.Attachment, ClusterUnavailable>
  readonly report: (
    sessionId: number,
    reports: OutcomeFrame
  ) => Effect.Effect<ReadonlyArray<OutcomeAnswer>, SessionUnknown | UnknownFrameVersion | ClusterUnavailable>
}

type Answer = (args: unknown, caller: Caller) => Effect.Effect<unknown, unknown>

const answerer = (handlers: FrameHandlers): ReadonlyMap<number, Answer> => {
  const answers = new Map<number, Answer>()
  const add = <Args extends ReadonlyArray<unknown>, A, E>(
    call: FrameCalls.FrameCall<Args, A, E>,
    handle: (args: Args, caller: Caller) => Effect.Effect<A, E>
  ) => {
    const unavailable = (reason: string) => new ClusterUnavailable({ operation: call.name, reason }) as unknown as E
    const refused = Effect.fail(call.encodeFailure(unavailable("these are no arguments of the call: refused")))
    // A handler's defect, or its interruption by a shutdown, is that of the node.
    const failure = (cause: Cause.Cause<E>) =>
      call.encodeFailure(Option.getOrElse(Cause.failureOption(cause), () => unavailable(Cause.pretty(cause))))
    answers.set(call.code, (args, caller) =>
      call.isArgs(args)
        ? Effect.mapBoth(Effect.sandbox(handle(args, caller)), { onFailure: failure, onSuccess: call.encode })
        : refused)
  }
  add(FrameCalls.enqueue, ([rows]) => handlers.enqueue(rows))
  add(
    FrameCalls.forwardEnqueue,
    ([namespace, queue, partition, rows]) => handlers.forwardEnqueue({ namespace, queue, partition }, rows)
  )
  add(FrameCalls.attach, ([workerId, tasks, credit], caller) => handlers.attach({ workerId, tasks, credit }, caller))
  add(FrameCalls.report, ([sessionId, reports]) => handlers.report(sessionId, reports))
  return answers
}

type Fork = (effect: Effect.Effect<unknown, unknown>, done: (exit: Exit.Exit<unknown, unknown>) => void) => void

/** The frame calls of one accepted connection. */
class AcceptedCalls implements Caller {
  private underWay = 0
  private isPaused = false
  private readonly whenClosed = new Set<() => void>()

  constructor(
    private readonly wire: Wire,
    private readonly answers: ReadonlyMap<number, Answer>,
    private readonly fork: Fork
  ) {}

  push(frame: ToWorkerFrame): void {
    this.wire.send(kinds.push, 0, 0, FrameCalls.pack(frame))
  }

  onClosed(closed: () => void): void {
    if (this.wire.isOpen) this.whenClosed.add(closed)
    else closed()
  }

  message(kind: number, operation: number, call: number, body: Uint8Array): void {
    const answer = this.answers.get(operation)
    if (kind !== kinds.call || answer === undefined) {
      return this.wire.destroy(`a message of kind ${kind} and operation ${operation} is not known here`)
    }
    this.underWay += 1
    if (this.underWay >= callsMax && !this.isPaused) {
      this.isPaused = true
      this.wire.pause()
    }
    this.fork(answer(FrameCalls.unpack(body), this), (exit) => {
      this.underWay -= 1
      if (this.isPaused && this.underWay < callsMax) {
        this.isPaused = false
        this.wire.resume()
      }
      if (exit._tag === "Success") return this.wire.send(kinds.answer, 0, call, FrameCalls.pack(exit.value))
      const failure = Cause.failureOption(exit.cause)
      // Interrupted with the node: the connection ends too, and tells the caller.
      if (Option.isSome(failure)) this.wire.send(kinds.failure, 0, call, FrameCalls.pack(failure.value))
    })
  }

  closed(): void {
    for (const each of this.whenClosed) each()
    this.whenClosed.clear()
  }
}

/** Where to listen. Port 0: any that is free, see the server's `address`. */
export interface ListenOptions {
  readonly host: string
  readonly port: number
  readonly guard?: Partial<GuardOptions>
}

/** Looks at silent connections, per time that one may be silent. */
const sweepsPerSilence = 6

/** Listens until the scope closes; connections are read once the RPC protocol runs. */
export const make = (
  options: ListenOptions,
  handlers: FrameHandlers
): Effect.Effect<SocketServer.SocketServer["Type"], SocketServer.SocketServerError, Scope.Scope> =>
  Effect.gen(function*() {
    const answers = answerer(handlers)
    const calls = yield* FiberSet.make()
    const runCall = yield* FiberSet.runtime(calls)<never>()
    const fork: Fork = (effect, done) => void runCall(effect).addObserver(done)
    const waiting: Array<Net.Socket> = []
    let accept = (socket: Net.Socket): void => void waiting.push(socket)
    const limits = { ...guardDefaults, ...options.guard }
    const guard = new ConnectionGuard(limits)
    const server = Net.createServer({ pauseOnConnect: true }, (socket) => {
      if (guard.admits(socket)) accept(socket)
    })
    yield* Effect.sync(() => guard.sweep()).pipe(
      Effect.delay(limits.silentMsMax / sweepsPerSilence),
      Effect.forever,
      Effect.forkScoped
    )
    yield* Effect.acquireRelease(
      Effect.async<void, SocketServer.SocketServerError>((resume) => {
        server.once("error", (cause) => resume(new SocketServer.SocketServerError({ reason: "Open", cause })))
        server.listen(options.port, options.host, () => resume(Effect.void))
      }),
      () => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
    )
    const run: SocketServer.SocketServer["Type"]["run"] = Effect.fnUntraced(
      function*<R, E, _>(handler: (socket: Socket.Socket) => Effect.Effect<_, E, R>) {
        const connections = yield* FiberSet.make()
        const runConnection = yield* FiberSet.runtime(connections)<R>()
        accept = (socket) => {
          const wire = new Wire(socket, "accepting", { unfinished: guard.unfinished })
          guard.add(wire)
          socket.once("close", () => guard.delete(wire))
          const from = `${socket.remoteAddress}:${socket.remotePort}`
          runConnection(
            Effect.acquireUseRelease(
              Effect.succeed(wire),
              () => handler(WireSocket.make(wire, new AcceptedCalls(wire, answers, fork))),
              () => Effect.sync(() => wire.close())
            ).pipe(
              Effect.zipRight(Effect.suspend(() =>
                wire.offence === undefined
                  ? Effect.void
                  : Effect.logWarning(`the connection from ${from} was ended: ${wire.offence}`)
              )),
              Effect.catchAllCause((cause) =>
                Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logWarning("a connection has failed", cause)
              )
            )
          )
          socket.resume()
        }
        for (const socket of waiting.splice(0)) accept(socket)
        return yield* Effect.never
      },
      Effect.scoped
    )
    const { address, port } = server.address() as Net.AddressInfo
    return SocketServer.SocketServer.of({ address: { _tag: "TcpAddress", hostname: address, port }, run })
  })

/** Listens as soon as it is built. */
export const layer = (
  options: ListenOptions,
  handlers: FrameHandlers
): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError> =>
  Layer.scoped(SocketServer.SocketServer, make(options, handlers))
