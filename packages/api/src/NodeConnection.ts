/**
 * One TCP connection to the data plane of one node.
 *
 * `RpcClient.layerProtocolSocket` hides losses: it reconnects by itself, and a call made at the wrong moment waits for
 * ever or fails as a defect. Here a connection lives once. When its socket ends, the calls in flight and all later ones
 * fail with `ClusterUnavailable`, `closed` completes at once, and the owner decides whether and where to connect again.
 * A peer that is silent but connected is not noticed here before 10 to 20 s (the ping of the RPC client): the time
 * limits of the calls are what finds it sooner.
 */
import { Socket } from "@effect/platform"
import { RpcClient, type RpcClientError, type RpcGroup, RpcSerialization } from "@effect/rpc"
import { ClusterUnavailable } from "@orrery/core/Errors"
import { Cause, Deferred, Duration, Effect, Option, Schedule, type Scope } from "effect"
import * as Net from "node:net"
import { decodeRefusal, type FrameCall, pack, unpack, unpackPush } from "./FrameCalls.js"
import type { ToWorkerFrame } from "./Frames.js"
import { NodeRpcs } from "./NodeRpcs.js"
import { bodyBytesMax, kinds, nextCall, Wire } from "./Wire.js"
import * as WireSocket from "./WireSocket.js"

export type Client = RpcClient.RpcClient<RpcGroup.Rpcs<typeof NodeRpcs>, RpcClientError.RpcClientError>

/** The typed errors of a call, with the loss of the connection put in the terms of the cluster. */
export type CallError<E> = Exclude<E, RpcClientError.RpcClientError> | ClusterUnavailable

export interface NodeConnection {
  /** `host:port`. */
  readonly address: string
  /**
   * One call, ended by its answer, by the loss of the connection or by `timeout` (default `callTimeoutDefault`), the
   * last two as `ClusterUnavailable`; so does a defect of the node's handler. Typed errors of the call pass.
   */
  readonly call: <A, E>(
    operation: string,
    make: (client: Client) => Effect.Effect<A, E>,
    timeout?: Duration.DurationInput
  ) => Effect.Effect<A, CallError<E>>
  /** A call that runs travel in; ended as `call` is. */
  readonly request: <Args extends ReadonlyArray<unknown>, A, E>(
    call: FrameCall<Args, A, E>,
    args: Args,
    timeout?: Duration.DurationInput
  ) => Effect.Effect<A, E | ClusterUnavailable>
  /** Takes what the node pushes to the session of this connection, at once and in order. Set it before `attach`. */
  readonly onPush: (push: (frame: ToWorkerFrame) => void) => void
  /** Completes when the socket is lost or the connection's scope is closed. */
  readonly closed: Effect.Effect<void>
  readonly isOpen: () => boolean
}

/** How long a connection attempt may take. */
export const openTimeoutDefault: Duration.DurationInput = "2 seconds"
/** How long a call may take unless it says otherwise. */
export const callTimeoutDefault: Duration.DurationInput = "10 seconds"
/** What both ends speak in the messages of Effect RPC. */
export const serialization = RpcSerialization.layerMsgPackWith({ useRecords: true, maxBufferSize: bodyBytesMax })

export interface ConnectOptions {
  readonly openTimeout?: Duration.DurationInput
}

/** Connects; the connection is closed with the scope. Fails when the node does not accept it in time. */
export const connect = (
  address: string,
  options: ConnectOptions = {}
): Effect.Effect<NodeConnection, ClusterUnavailable, Scope.Scope> =>
  Effect.gen(function*() {
    const { host, port } = yield* parseAddress(address)
    const closed = yield* Deferred.make<void>()
    // The first finalizer, so the last to run: nothing may wait on a connection whose scope is gone.
    const state = { isOpen: true }
    const lose = Effect.suspend(() => {
      state.isOpen = false
      return Deferred.succeed(closed, undefined)
    })
    yield* Effect.addFinalizer(() => lose)
    const socket = yield* open(host, port).pipe(
      Effect.timeoutFail({
        duration: options.openTimeout ?? openTimeoutDefault,
        onTimeout: () => "no answer in time"
      }),
      Effect.mapError((reason) => new ClusterUnavailable({ operation: `connect ${address}`, reason }))
    )
    const wire = yield* Effect.acquireRelease(
      Effect.sync(() => new Wire(socket, "connecting")),
      (wire) => Effect.sync(() => wire.close())
    )
    const calls = new PendingCalls(address, wire)
    yield* Effect.addFinalizer(() => Effect.sync(() => calls.failAll("the connection is closed")))
    const listening = yield* Deferred.make<void>()
    const protocol = yield* RpcClient.makeProtocolSocket({ retrySchedule: Schedule.recurs(1) }).pipe(
      Effect.provideService(Socket.Socket, once(WireSocket.make(wire, calls), { listening, lose })),
      Effect.provide(serialization)
    )
    const client = yield* RpcClient.make(NodeRpcs, { disableTracing: true }).pipe(
      Effect.provideService(RpcClient.Protocol, protocol)
    )
    yield* Deferred.await(listening)
    return {
      address,
      call: caller(address, client, () => calls.refusal),
      request: (call, args, timeout) => calls.request(call, args, Duration.toMillis(timeout ?? callTimeoutDefault)),
      onPush: (push) => void (calls.onPush = push),
      closed: Deferred.await(closed),
      isOpen: () => state.isOpen && wire.isOpen
    }
  })

const open = (host: string, port: number): Effect.Effect<Net.Socket, string, Scope.Scope> =>
  Effect.suspend(() => {
    const socket = Net.connect({ host, port })
    const opened = Effect.async<Net.Socket, string>((resume) => {
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.once("error", (error) => resume(Effect.fail(error.message)))
      // A connection that never opened would linger until the system gives up.
      return Effect.sync(() => socket.destroy())
    })
    return Effect.acquireReleaseInterruptible(opened, () => Effect.sync(() => socket.destroySoon()))
  })

/**
 * The same socket, which tells of its end. The protocol runs it again after it has failed the calls in flight: that
 * second run is the sign that all of them know, so nobody waits on a dead connection.
 */
const once = (base: Socket.Socket, watch: {
  readonly listening: Deferred.Deferred<void>
  readonly lose: Effect.Effect<unknown>
}): Socket.Socket => {
  let isUsed = false
  const run: Socket.Socket["runRaw"] = (handler, options) => {
    if (isUsed) return Effect.zipRight(watch.lose, Effect.never)
    isUsed = true
    const onOpen = Effect.zipRight(options?.onOpen ?? Effect.void, Deferred.succeed(watch.listening, undefined))
    return base.runRaw(handler, { onOpen })
  }
  return Socket.Socket.of({ ...base, run: run as Socket.Socket["run"], runRaw: run })
}

interface Pending {
  readonly settle: (kind: number, body: Uint8Array) => void
  readonly fail: (reason: string) => void
}

/** The frame calls of one connection that have no answer yet. */
class PendingCalls {
  private readonly pending = new Map<number, Pending>()
  private last = 0
  onPush: (frame: ToWorkerFrame) => void = () => undefined
  /** Why the node would not have the connection. */
  refusal: string | undefined

  constructor(private readonly address: string, private readonly wire: Wire) {}

  request<Args extends ReadonlyArray<unknown>, A, E>(
    call: FrameCall<Args, A, E>,
    args: Args,
    timeoutMs: number
  ): Effect.Effect<A, E | ClusterUnavailable> {
    const unavailable = (reason: string) =>
      Effect.fail(new ClusterUnavailable({ operation: `${call.name} at ${this.address}`, reason }))
    return Effect.async((resume) => {
      if (!this.wire.isOpen) return resume(unavailable("the connection is closed"))
      const id = this.last = nextCall(this.last)
      const timer = setTimeout(() => end(unavailable(`no answer in ${timeoutMs} ms`)), timeoutMs)
      const end = (result: Effect.Effect<A, E | ClusterUnavailable>): void => {
        clearTimeout(timer)
        this.pending.delete(id)
        resume(result)
      }
      this.pending.set(id, {
        settle: (kind, body) => {
          const value = unpack(body)
          if (kind === kinds.failure) {
            return end(Option.match(call.decodeFailure(value), {
              onNone: () => unavailable("the failure cannot be read"),
              onSome: (failure) => Effect.fail(failure)
            }))
          }
          const answer = value === undefined ? undefined : call.decode(value)
          end(answer === undefined ? unavailable("the answer cannot be read") : Effect.succeed(answer))
        },
        fail: (reason) => end(unavailable(reason))
      })
      this.wire.send(kinds.call, call.code, id, pack(args))
      // The answer is of no use any more when it comes.
      return Effect.sync(() => {
        clearTimeout(timer)
        this.pending.delete(id)
      })
    })
  }

  message(kind: number, _operation: number, id: number, body: Uint8Array): void {
    if (kind === kinds.failure && id === 0) {
      this.refusal = Option.getOrUndefined(decodeRefusal(unpack(body)))?.reason
      return
    }
    if (kind === kinds.answer || kind === kinds.failure) return this.pending.get(id)?.settle(kind, body)
    const frame = kind === kinds.push ? unpackPush(body) : undefined
    if (frame === undefined) this.wire.destroy(`a message of kind ${kind} cannot be read`)
    else this.onPush(frame)
  }

  closed(reason: string | undefined): void {
    this.failAll(this.refusal ?? reason ?? "closed by the node")
  }

  failAll(reason: string): void {
    for (const each of [...this.pending.values()]) each.fail(reason)
  }
}

const caller = (address: string, client: Client, refusal: () => string | undefined) =>
<A, E>(
  operation: string,
  make: (client: Client) => Effect.Effect<A, E>,
  timeout: Duration.DurationInput = callTimeoutDefault
): Effect.Effect<A, CallError<E>> => {
  const unavailable = (reason: string) => new ClusterUnavailable({ operation: `${operation} at ${address}`, reason })
  return make(client).pipe(
    // A node that shuts down answers with an interruption, a write to a dead socket with a defect: neither is ours.
    Effect.catchAllCause((cause): Effect.Effect<never, CallError<E>> => {
      const error = Cause.failureOption(cause)
      return Option.isNone(error) || isClientError(error.value)
        ? Effect.fail(unavailable(refusal() ?? reasonOf(cause)))
        : Effect.fail(error.value as Exclude<E, RpcClientError.RpcClientError>)
    }),
    // Telling a silent node of the interruption may take a second: nobody waits for that.
    Effect.disconnect,
    Effect.timeoutFail({
      duration: timeout,
      onTimeout: () => unavailable(`no answer in ${Duration.format(Duration.decode(timeout))}`)
    })
  )
}

/** Of a call that the node, one of an earlier release, does not know. */
export const isUnknownCall = ({ reason }: ClusterUnavailable): boolean => reason.includes("Unknown request tag")

const isClientError = (error: unknown): error is RpcClientError.RpcClientError =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "RpcClientError"

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const problem = Cause.squash(cause)
  if (!(problem instanceof Error)) return String(problem)
  return problem.cause instanceof Error ? `${problem.message}: ${problem.cause.message}` : problem.message
}

/** `host:port`; an IPv6 host stands in brackets. */
export const parseAddress = (
  address: string
): Effect.Effect<{ readonly host: string; readonly port: number }, ClusterUnavailable> => {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address)
  const port = Number(match?.[3])
  return match !== null && port > 0 && port < 65_536
    ? Effect.succeed({ host: (match[1] ?? match[2])!, port })
    : Effect.fail(new ClusterUnavailable({ operation: "connect", reason: `${address} is not host:port` }))
}
