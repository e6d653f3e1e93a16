/** The bytes of Effect RPC on a `Wire`, as the `Socket` its protocols are made of. */
import { Socket } from "@effect/platform"
import { Deferred, Effect, FiberSet, Scope } from "effect"
import { kinds, type Wire } from "./Wire.js"

/** What else arrives on the connection. */
export interface Others {
  readonly message: (kind: number, operation: number, call: number, body: Uint8Array) => void
  /** Before the protocol is told. */
  readonly closed: (reason: string | undefined) => void
}

/** Runs once: reading begins with it. */
export const make = (wire: Wire, others: Others): Socket.Socket => {
  const runRaw: Socket.Socket["runRaw"] = (handler, options) =>
    Effect.scopedWith(Effect.fnUntraced(function*(scope) {
      const fibers = yield* Scope.extend(FiberSet.make<unknown, never>(), scope)
      const run = yield* FiberSet.runtime(fibers)<never>()
      if (options?.onOpen !== undefined) yield* options.onOpen
      const ended = yield* Deferred.make<never, Socket.SocketError>()
      wire.listen({
        message: (kind, operation, call, body) => {
          if (kind !== kinds.rpc) return others.message(kind, operation, call, body)
          const result = handler(body)
          if (Effect.isEffect(result)) run(result as Effect.Effect<unknown, never, never>)
        },
        closed: (reason) => {
          others.closed(reason)
          const code = reason === undefined ? 1000 : 1006
          Deferred.unsafeDone(
            ended,
            Effect.fail(new Socket.SocketCloseError({ reason: "Close", code, ...(reason && { closeReason: reason }) }))
          )
        }
      })
      return yield* Effect.raceFirst(Deferred.await(ended), FiberSet.join(fibers))
    }))
  const write = (chunk: Uint8Array | string | Socket.CloseEvent) =>
    Effect.sync(() => {
      if (Socket.isCloseEvent(chunk)) wire.destroy(chunk.reason ?? `closed with code ${chunk.code}`)
      else wire.send(kinds.rpc, 0, 0, typeof chunk === "string" ? Buffer.from(chunk) : chunk)
    })
  return Socket.Socket.of({
    [Socket.TypeId]: Socket.TypeId,
    run: runRaw as Socket.Socket["run"],
    runRaw,
    writer: Effect.acquireRelease(Effect.succeed(write), () => Effect.sync(() => wire.close()))
  })
}
