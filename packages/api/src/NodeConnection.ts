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
import { NodeSocket } from "@effect/platform-node"
import { RpcClient, type RpcClientError, type RpcGroup, RpcSerialization } from "@effect/rpc"
import { ClusterUnavailable } from "@orrery/core/Errors"
import { Cause, Deferred, Duration, Effect, Option, Schedule, type Scope } from "effect"
import { NodeRpcs } from "./NodeRpcs.js"

export type Client = RpcClient.RpcClient<RpcGroup.Rpcs<typeof NodeRpcs>, RpcClientError.RpcClientError>

/** The typed errors of a call, with the loss of the connection put in the terms of the cluster. */
export type CallError<E> = Exclude<E, RpcClientError.RpcClientError> | ClusterUnavailable

export interface NodeConnection {
  /** `host:port`. */
  readonly address: string
  /** For streams. Single calls go through `call`, which knows of losses. */
  readonly client: Client
  /**
   * One call, ended by its answer, by the loss of the connection or by `timeout` (default `callTimeoutDefault`), the
   * last two as `ClusterUnavailable`; so does a defect of the node's handler. Typed errors of the call pass.
   */
  readonly call: <A, E>(
    operation: string,
    make: (client: Client) => Effect.Effect<A, E>,
    timeout?: Duration.DurationInput
  ) => Effect.Effect<A, CallError<E>>
  /** Completes when the socket is lost or the connection's scope is closed. */
  readonly closed: Effect.Effect<void>
  readonly isOpen: () => boolean
}

/** How long a connection attempt may take. */
export const openTimeoutDefault: Duration.DurationInput = "2 seconds"
/** How long a call may take unless it says otherwise. */
export const callTimeoutDefault: Duration.DurationInput = "10 seconds"
/** Undecoded bytes of one message. Both sides must use it: above it the connection is closed. */
export const messageBytesMax = 32 * 1024 * 1024

/** What both ends of a connection speak. */
export const serialization = RpcSerialization.layerMsgPackWith({ useRecords: true, maxBufferSize: messageBytesMax })

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
    const opened = yield* Deferred.make<void, ClusterUnavailable>()
    const closed = yield* Deferred.make<void>()
    // The first finalizer, so the last to run: nothing may wait on a connection whose scope is gone.
    const state = { isOpen: true }
    const lose = Effect.suspend(() => {
      state.isOpen = false
      return Deferred.succeed(closed, undefined)
    })
    yield* Effect.addFinalizer(() => lose)
    const abort = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      // A connection that never opened would linger until the system gives up.
      (controller) => Effect.map(Deferred.isDone(opened), (isDone) => isDone ? undefined : controller.abort())
    )
    const openTimeout = options.openTimeout ?? openTimeoutDefault
    // Without `noDelay` each small call may wait 40 ms for the peer's delayed acknowledgement.
    const base = yield* Effect.orDie(
      NodeSocket.makeNet({ host, port, noDelay: true, signal: abort.signal, openTimeout })
    )
    const protocol = yield* RpcClient.makeProtocolSocket({ retrySchedule: Schedule.recurs(1) }).pipe(
      Effect.provideService(Socket.Socket, observed(base, { address, opened, lose })),
      Effect.provide(serialization)
    )
    const client = yield* RpcClient.make(NodeRpcs, { disableTracing: true }).pipe(
      Effect.provideService(RpcClient.Protocol, protocol)
    )
    yield* Deferred.await(opened)
    return {
      address,
      client,
      call: caller(address, client),
      closed: Deferred.await(closed),
      isOpen: () => state.isOpen
    }
  })

/**
 * The same socket, which tells of its opening and its end, and opens once. The protocol runs it again after it has
 * failed the calls in flight: that second run is the sign that all of them know, so nobody waits on a dead connection.
 */
const observed = (base: Socket.Socket, watch: {
  readonly address: string
  readonly opened: Deferred.Deferred<void, ClusterUnavailable>
  readonly lose: Effect.Effect<unknown>
}): Socket.Socket => {
  let isUsed = false
  const run: Socket.Socket["runRaw"] = (handler, options) => {
    if (isUsed) return Effect.zipRight(watch.lose, Effect.never)
    isUsed = true
    const onOpen = Effect.zipRight(options?.onOpen ?? Effect.void, Deferred.succeed(watch.opened, undefined))
    return base.runRaw(handler, { onOpen }).pipe(
      Effect.onExit((exit) => {
        const reason = exit._tag === "Failure" ? reasonOf(exit.cause) : "closed by the node"
        return Deferred.fail(watch.opened, new ClusterUnavailable({ operation: `connect ${watch.address}`, reason }))
      })
    )
  }
  return Socket.Socket.of({
    [Socket.TypeId]: Socket.TypeId,
    run: run as Socket.Socket["run"],
    runRaw: run,
    writer: base.writer
  })
}

const caller = (address: string, client: Client) =>
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
        ? Effect.fail(unavailable(reasonOf(cause)))
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
