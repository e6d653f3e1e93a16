import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Net from "node:net"
import { connect } from "../src/NodeConnection.js"
import { headerOf, kinds, preface } from "../src/Wire.js"
import * as TestNode from "./TestNode.js"

/** A connection that speaks the bytes it is told to. */
const raw = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [host, port] = address.split(":")
      const socket = Net.connect({ host: host!, port: Number(port) })
      let isClosed = false
      socket.on("error", () => undefined)
      socket.on("close", () => isClosed = true)
      socket.resume()
      return { socket, isClosed: () => isClosed }
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const ping = (address: string) =>
  Effect.scoped(Effect.flatMap(connect(address), (node) => node.call("Ping", (client) => client.Ping())))

describe("ConnectionGuard", () => {
  it.scopedLive("refuses one connection too many by name, and takes one again when another has gone", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({}, { connectionsMax: 2 })
      const first = yield* raw(node.address)
      first.socket.write(preface)
      const second = yield* connect(node.address)
      yield* second.call("Ping", (client) => client.Ping())

      const third = yield* connect(node.address)
      const error = yield* Effect.flip(third.call("Ping", (client) => client.Ping()))
      const again = yield* Effect.flip(third.call("Ping", (client) => client.Ping()))

      assert.strictEqual(error._tag, "ClusterUnavailable")
      assert.include(error.message + again.message, "as many connections as it may (2)")
      assert.strictEqual(yield* second.call("Ping", (client) => client.Ping()), "node")
      first.socket.destroy()
      yield* Effect.eventually(ping(node.address)).pipe(Effect.timeout("10 seconds"))
    }))

  it.scopedLive("ends a connection that sends half a message, or nothing, and no other", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({}, { silentMsMax: 300 })
      const mute = yield* raw(node.address)
      const slow = yield* raw(node.address)
      slow.socket.write(preface)
      slow.socket.write(headerOf(1_000, kinds.call, 1, 1))
      yield* Effect.sync(() => slow.socket.write("x")).pipe(
        Effect.delay("20 millis"),
        Effect.forever,
        Effect.forkScoped
      )
      const healthy = yield* connect(node.address)
      yield* healthy.call("Ping", (client) => client.Ping()).pipe(
        Effect.delay("20 millis"),
        Effect.forever,
        Effect.forkScoped
      )

      yield* TestNode.eventually("both are ended", () => mute.isClosed() && slow.isClosed())

      assert.isTrue(healthy.isOpen())
    }))

  it.scopedLive("gives up the largest when unfinished messages take too much together", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({}, { unfinishedBytesMax: 1_000_000 })
      const begin = (bytes: number) =>
        Effect.tap(raw(node.address), ({ socket }) => {
          socket.write(preface)
          socket.write(headerOf(bytes + 1, kinds.call, 1, 1))
          socket.write(Buffer.alloc(bytes))
        })

      const small = yield* begin(300_000)
      const large = yield* begin(800_000)
      yield* TestNode.eventually("the large one is ended", large.isClosed)

      assert.isFalse(small.isClosed())
      assert.strictEqual(yield* ping(node.address), "node")
    }))

  it.scopedLive("ends a connection that has more calls under way than it may, and no other", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({ Nodes: () => Effect.never }, { rpcCallsMax: 50 })
      const flooding = yield* connect(node.address)
      const healthy = yield* connect(node.address)

      const calls = yield* Effect.fork(
        Effect.forEach(
          Array.from({ length: 60 }),
          () => Effect.flip(flooding.call("Nodes", (client) => client.Nodes())),
          { concurrency: "unbounded" }
        )
      )
      yield* Fiber.join(calls)

      assert.isFalse(flooding.isOpen())
      // Calls that have been answered do not count.
      yield* Effect.repeatN(healthy.call("Ping", (client) => client.Ping()), 100)
      assert.isTrue(healthy.isOpen())
    }))
})
