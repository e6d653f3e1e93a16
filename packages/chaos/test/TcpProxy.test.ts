import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import * as TcpProxy from "../src/TcpProxy.js"

/** Long enough for what would come on a machine that is busy; nothing that must come is waited for by it. */
const silence = "150 millis"
const never = "5 seconds"

/** Answers each chunk with itself, in capitals; keeps what it got, and whether the other side has ended. */
const echo = Effect.acquireRelease(
  Effect.async<
    { readonly port: number; readonly got: Array<string>; readonly ends: { count: number }; close: () => void }
  >(
    (resume) => {
      const got: Array<string> = []
      const ends = { count: 0 }
      const sockets = new Set<Socket>()
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        sockets.add(socket)
        socket.on("error", () => undefined)
        socket.on("data", (chunk) => {
          got.push(chunk.toString())
          socket.write(chunk.toString().toUpperCase())
        })
        socket.on("end", () => {
          ends.count += 1
          socket.write("BYE")
          socket.end()
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        const close = () => {
          for (const socket of sockets) socket.destroy()
          server.close()
        }
        resume(Effect.succeed({ port, got, ends, close }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

interface Client {
  readonly socket: Socket
  readonly heard: () => string
  readonly closed: () => boolean
  readonly ended: () => boolean
}

const client = (port: number) =>
  Effect.acquireRelease(
    Effect.async<Client>((resume) => {
      const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true })
      let heard = ""
      let isClosed = false
      let isEnded = false
      socket.on("data", (chunk) => heard += chunk.toString())
      socket.on("error", () => undefined)
      socket.on("end", () => isEnded = true)
      socket.on("close", () => isClosed = true)
      const made = { socket, heard: () => heard, closed: () => isClosed, ended: () => isEnded }
      socket.once("connect", () => resume(Effect.succeed(made)))
      // Broken before it was told that it is open.
      socket.once("close", () => resume(Effect.succeed(made)))
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const until = (holds: () => boolean) =>
  Effect.sleep("5 millis").pipe(
    Effect.repeat({ until: holds }),
    Effect.timeoutFail({ duration: never, onTimeout: () => new Error(`never: ${holds}`) })
  )

const stage = Effect.gen(function*() {
  const server = yield* echo
  let drawn = 0
  const random = () => (drawn += 0.37) % 1
  const proxy = yield* TcpProxy.listen({ host: "127.0.0.1", port: server.port, random })
  return { server, proxy, client: yield* client(proxy.port) }
})

describe.concurrent("TcpProxy", () => {
  it.scopedLive("passes both ways, and the end of each side", () =>
    Effect.gen(function*() {
      const { client, proxy, server } = yield* stage

      client.socket.write("hello")
      yield* until(() => client.heard() === "HELLO")
      client.socket.end()
      yield* until(() => client.heard() === "HELLOBYE" && client.closed())

      assert.strictEqual(server.ends.count, 1)
      yield* until(() => proxy.connections() === 0)
    }))

  it.scopedLive("holds what is sent into a black hole, one way or both, and lets it out when healed", () =>
    Effect.gen(function*() {
      const { client, proxy, server } = yield* stage
      client.socket.write("a")
      yield* until(() => client.heard() === "A")

      proxy.set({ _tag: "blackhole", ways: ["toClient"] })
      client.socket.write("b")
      yield* until(() => server.got.join("") === "ab")
      yield* Effect.sleep(silence)
      assert.strictEqual(client.heard(), "A")

      proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })
      client.socket.write("c")
      yield* Effect.sleep(silence)
      assert.strictEqual(server.got.join(""), "ab")
      assert.isFalse(client.closed())

      proxy.set({ _tag: "pass" })
      yield* until(() => client.heard() === "ABC")
    }))

  it.scopedLive("accepts a connection into a black hole, and connects it when healed", () =>
    Effect.gen(function*() {
      const { proxy } = yield* stage
      proxy.set({ _tag: "blackhole", ways: ["toServer", "toClient"] })
      const late = yield* client(proxy.port)
      late.socket.write("late")
      yield* Effect.sleep(silence)
      assert.strictEqual(late.heard(), "")

      proxy.set({ _tag: "pass" })
      yield* until(() => late.heard() === "LATE")
    }))

  it.scopedLive("delays in order, and gives out at once what waits when the delay ends", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* stage
      proxy.set({ _tag: "delay", ms: 100, jitterMs: 50 })
      const began = performance.now()
      client.socket.write("1")
      yield* Effect.sleep("10 millis")
      client.socket.write("2")
      yield* until(() => client.heard() === "12")
      assert.isAtLeast(performance.now() - began, 200)

      proxy.set({ _tag: "delay", ms: 60_000, jitterMs: 0 })
      client.socket.write("3")
      yield* Effect.sleep(silence)
      assert.strictEqual(client.heard(), "12")
      proxy.set({ _tag: "pass" })
      yield* until(() => client.heard() === "123")
    }))

  it.scopedLive("lets no more through than it is told", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* stage
      const bytes = 40_000
      proxy.set({ _tag: "throttle", bytesPerSecond: 100_000 })
      const began = performance.now()
      client.socket.write("x".repeat(bytes))
      yield* until(() => client.heard().length === bytes)

      // Once each way; the second overlaps the first where it came in pieces.
      assert.isAtLeast(performance.now() - began, 390)
    }))

  it.scopedLive("breaks connections, old and new ones", () =>
    Effect.gen(function*() {
      const { client: old, proxy } = yield* stage
      proxy.set({ _tag: "reset" })
      yield* until(old.closed)
      const fresh = yield* client(proxy.port)
      yield* until(fresh.closed)

      proxy.set({ _tag: "pass" })
      const healed = yield* client(proxy.port)
      healed.socket.write("x")
      yield* until(() => healed.heard() === "X")
    }))

  it.scopedLive("corrupts one bit of one chunk", () =>
    Effect.gen(function*() {
      const { client, proxy, server } = yield* stage
      client.socket.write("first")
      yield* until(() => server.got.join("") === "first")
      proxy.corruptByte("toServer")
      client.socket.write("aaaa")
      yield* until(() => server.got.join("").length === 9)
      client.socket.write("bbbb")
      yield* until(() => server.got.join("").length === 13)

      const [, changed, clean] = server.got
      assert.strictEqual([...changed!].filter((letter) => letter !== "a").length, 1)
      assert.strictEqual(clean, "bbbb")
    }))

  it.scopedLive("ends one way and leaves the other", () =>
    Effect.gen(function*() {
      const { client, proxy, server } = yield* stage
      client.socket.write("a")
      yield* until(() => client.heard() === "A")

      proxy.halfClose("toServer")
      yield* until(() => server.ends.count === 1)
      yield* until(() => client.heard() === "ABYE")
    }))

  it.scopedLive("loses the answer to one request, after the server has got it", () =>
    Effect.gen(function*() {
      const { client: victim, proxy, server } = yield* stage
      const bystander = yield* client(proxy.port)
      const lost = yield* Effect.fork(proxy.loseAnswerTo("commit"))
      yield* Effect.yieldNow()
      bystander.socket.write("select")
      victim.socket.write("begin")
      yield* until(() => victim.heard() === "BEGIN" && bystander.heard() === "SELECT")

      victim.socket.write("commit")
      yield* Fiber.join(lost)
      yield* until(victim.closed)

      assert.include(server.got, "commit")
      assert.strictEqual(victim.heard(), "BEGIN")
      bystander.socket.write("more")
      yield* until(() => bystander.heard() === "SELECTMORE")
    }))

  it.scopedLive("breaks the client's connection when there is no server", () =>
    Effect.gen(function*() {
      const { client: old, proxy, server } = yield* stage
      server.close()
      yield* until(old.closed)
      const fresh = yield* client(proxy.port)
      yield* until(fresh.closed)
    }))
})
