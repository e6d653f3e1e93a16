/** A real TCP server of a data plane whose handlers the test writes, behind a proxy that can cut every connection. */
import { SocketServer } from "@effect/platform"
import { type RpcGroup, RpcSerialization, RpcServer } from "@effect/rpc"
import { Context, Effect, Layer, Schedule } from "effect"
import * as Net from "node:net"
import type { GuardOptions } from "../src/ConnectionGuard.js"
import { serialization } from "../src/NodeConnection.js"
import * as NodeListener from "../src/NodeListener.js"
import { NodeRpcs } from "../src/NodeRpcs.js"
import * as RpcBounds from "../src/RpcBounds.js"

type RpcHandlers = RpcGroup.HandlersFrom<RpcGroup.Rpcs<typeof NodeRpcs>>
export type Handlers = RpcHandlers & NodeListener.FrameHandlers

export interface Bounds extends Partial<GuardOptions> {
  readonly rpcCallsMax?: number
}

export interface TestNode {
  readonly address: string
  /** Destroys all connections, as a killed process would; the node still listens. */
  readonly cut: () => void
  /** Refuses new connections from now on, and cuts the others. */
  readonly kill: () => void
  /** Swallows all bytes from now on, as a frozen process would. */
  readonly freeze: () => void
}

const serve = (handlers: Partial<Handlers>, { rpcCallsMax, ...guard }: Bounds) =>
  Effect.gen(function*() {
    const missing = () => Effect.dieMessage("not in this test")
    const rpcs = { Ping: () => Effect.succeed("node"), Nodes: () => Effect.succeed([]), ...handlers }
    const implemented = NodeRpcs.toLayer(
      Object.fromEntries(
        [...NodeRpcs.requests.keys()].map((tag) => [tag, (rpcs as Partial<RpcHandlers>)[tag as never] ?? missing])
      ) as unknown as RpcHandlers
    )
    const frames = { enqueue: missing, forwardEnqueue: missing, attach: missing, report: missing, ...handlers }
    const context = yield* Layer.build(
      RpcServer.layer(NodeRpcs, { disableFatalDefects: true, disableTracing: true }).pipe(
        Layer.provide(implemented),
        Layer.provide(RpcServer.layerProtocolSocketServer),
        Layer.provide(
          Layer.effect(
            RpcSerialization.RpcSerialization,
            Effect.map(RpcSerialization.RpcSerialization, RpcBounds.boundedBy(rpcCallsMax ?? RpcBounds.rpcCallsMax))
          ).pipe(Layer.provide(serialization))
        ),
        Layer.provideMerge(NodeListener.layer({ host: "127.0.0.1", port: 0, guard }, frames))
      )
    )
    const address = Context.get(context, SocketServer.SocketServer).address
    return address._tag === "TcpAddress" ? address.port : yield* Effect.dieMessage("no port")
  })

export const make = (handlers: Partial<Handlers>, bounds: Bounds = {}) =>
  Effect.gen(function*() {
    const port = yield* serve(handlers, bounds)
    const sockets = new Set<Net.Socket>()
    let isFrozen = false
    const forward = (from: Net.Socket, to: Net.Socket) => {
      sockets.add(from)
      from.on("data", (bytes) => isFrozen || to.write(bytes))
      from.on("error", () => undefined)
      from.on("close", () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    const proxy = Net.createServer({ noDelay: true }, (socket) => {
      const upstream = Net.connect({ port, host: "127.0.0.1", noDelay: true })
      forward(socket, upstream)
      forward(upstream, socket)
    })
    const cut = () => sockets.forEach((socket) => socket.destroy())
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => {
        proxy.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.sync(() => {
          cut()
          proxy.close()
        })
    )
    const node: TestNode = {
      address: `127.0.0.1:${(proxy.address() as Net.AddressInfo).port}`,
      cut,
      kill: () => {
        proxy.close()
        cut()
      },
      freeze: () => isFrozen = true
    }
    return node
  })

const pollSchedule = Schedule.spaced("5 millis")

/** Polls until `check` holds; fails after `seconds`. */
export const eventually = (what: string, check: () => boolean, seconds = 15): Effect.Effect<void> =>
  Effect.suspend(() => check() ? Effect.void : Effect.fail(what)).pipe(
    Effect.retry(pollSchedule),
    Effect.timeoutFail({ duration: `${seconds} seconds`, onTimeout: () => what }),
    Effect.orDieWith((reason) => new Error(`did not happen: ${reason}`))
  )
