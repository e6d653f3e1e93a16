/** Messages of both sides over a real socket, in pieces of every size, and what happens at the bounds. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Net from "node:net"
import { bodyBytesMax, kinds, preface, Wire } from "../src/Wire.js"
import { eventually } from "./TestNode.js"

type Message = readonly [kind: number, operation: number, call: number, body: string]

/** An accepting wire, and the bare socket of whoever connected to it. */
const pair = (unreadMax?: number) =>
  Effect.gen(function*() {
    const accepted: Array<Net.Socket> = []
    const server = Net.createServer({ pauseOnConnect: true }, (socket) => accepted.push(socket))
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () => Effect.sync(() => server.close())
    )
    const peer = yield* Effect.acquireRelease(
      Effect.sync(() => Net.connect((server.address() as Net.AddressInfo).port, "127.0.0.1")),
      (socket) => Effect.sync(() => socket.destroy())
    )
    peer.on("error", () => undefined)
    yield* eventually("a connection", () => accepted.length === 1)
    const wire = new Wire(accepted[0]!, "accepting", unreadMax === undefined ? {} : { unreadMax })
    const messages: Array<Message> = []
    const ends: Array<string | undefined> = []
    wire.listen({
      message: (kind, operation, call, body) => messages.push([kind, operation, call, Buffer.from(body).toString()]),
      closed: (reason) => ends.push(reason)
    })
    accepted[0]!.resume()
    return { peer, socket: accepted[0]!, wire, messages, ends }
  })

const encode = (kind: number, operation: number, call: number, body: string): Buffer => {
  const header = Buffer.alloc(12)
  header.writeUInt32LE(Buffer.byteLength(body), 0)
  header[4] = kind
  header[5] = operation
  header.writeUInt32LE(call, 8)
  return Buffer.concat([header, Buffer.from(body)])
}

const sample: ReadonlyArray<Message> = [
  [kinds.call, 1, 1, "first"],
  [kinds.rpc, 0, 0, ""],
  [kinds.call, 4, 2 ** 32 - 1, "ä".repeat(70_000)],
  [kinds.answer, 0, 7, "last"]
]

describe("Wire", { timeout: 30_000 }, () => {
  for (const size of [1, 5, 12, 13, 1_000, 10_000_000]) {
    it.scopedLive(`reads messages that come in pieces of ${size} bytes`, () =>
      Effect.gen(function*() {
        const { messages, peer } = yield* pair()
        const bytes = Buffer.concat([preface, ...sample.map((message) => encode(...message))])
        // One byte at a time for the first few hundred only: the rest says nothing new.
        const small = size < 100 ? bytes.subarray(0, 400) : bytes
        for (let at = 0; at < small.length; at += size) peer.write(small.subarray(at, at + size))
        peer.write(bytes.subarray(small.length))
        yield* eventually("all messages", () => messages.length === sample.length)

        assert.deepStrictEqual(messages, sample)
      }))
  }

  it.scopedLive("sends what the other side reads as it is, many in one turn", () =>
    Effect.gen(function*() {
      const { peer, wire } = yield* pair()
      const received: Array<Buffer> = []
      peer.on("data", (bytes: Buffer) => received.push(bytes))
      for (const [kind, operation, call, body] of sample) wire.send(kind, operation, call, Buffer.from(body))
      const expected = Buffer.concat(sample.map((message) => encode(...message)))
      yield* eventually("all bytes", () => received.reduce((sum, each) => sum + each.length, 0) === expected.length)

      assert.isTrue(Buffer.concat(received).equals(expected))
    }))

  it.scopedLive("reads no more of a peer that does not read, until it does", () =>
    Effect.gen(function*() {
      const { messages, peer, socket, wire } = yield* pair(1_000_000)
      peer.write(Buffer.concat([preface, encode(kinds.call, 1, 1, "before")]))
      yield* eventually("the first message", () => messages.length === 1)
      peer.pause()
      // The systems of both ends take some of it.
      const large = Buffer.alloc(4_000_000)
      for (let n = 0; n < 5; n++) wire.send(kinds.answer, 0, 1, large)
      const isReading = !socket.isPaused()
      peer.write(encode(kinds.call, 1, 2, "meanwhile"))
      peer.resume()
      yield* eventually("the second message", () => messages.length === 2)

      assert.isFalse(isReading)
      assert.isFalse(socket.isPaused())
    }))

  it.scopedLive("ends the connection for what is not of the protocol, and says why, once", () =>
    Effect.gen(function*() {
      const { ends, messages, peer } = yield* pair()
      const tooLong = encode(kinds.call, 1, 1, "")
      tooLong.writeUInt32LE(bodyBytesMax + 1, 0)
      peer.write(Buffer.concat([preface, encode(kinds.call, 1, 1, "good"), tooLong, encode(kinds.call, 1, 2, "late")]))
      yield* eventually("the end", () => ends.length > 0)

      assert.deepStrictEqual(messages.map(([, , call]) => call), [1])
      assert.lengthOf(ends, 1)
      assert.include(ends[0], `${bodyBytesMax + 1} bytes is not of this protocol`)
    }))
})
