import { assert, describe, it } from "@effect/vitest"
import { ClusterUnavailable, InvalidRequest, RunNotFound } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import * as Net from "node:net"
import { standStill } from "../../testing/src/standStill.js"
import { attach, enqueue, report } from "../src/FrameCalls.js"
import { decodeRequests, encodeRequests, encodeToWorker } from "../src/Frames.js"
import { connect } from "../src/NodeConnection.js"
import { kinds, preface } from "../src/Wire.js"
import * as TestNode from "./TestNode.js"

const id = "01890000-0000-7000-8000-000000000000" as RunId
const refusal = (actual: string) => new InvalidRequest({ field: "queue", limit: "a name", actual })
const request = (payload: string): RunRequest => ({
  id,
  namespace: "default",
  queue: "q",
  task: "t",
  payload,
  priority: 0,
  when: { _tag: "delay", ms: 0 },
  policy: "",
  keys: null,
  resend: false
})

describe.concurrent("NodeConnection", { timeout: 30_000 }, () => {
  it.scopedLive("passes answers and typed errors of the node", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({ Get: () => new RunNotFound({ runId: id }) })
      const connection = yield* connect(node.address)

      const name = yield* connection.call("Ping", (client) => client.Ping())
      const error = yield* Effect.flip(connection.call("Get", (client) => client.Get({ id })))

      assert.strictEqual(name, "node")
      assert.strictEqual(error._tag, "RunNotFound")
    }))

  it.scopedLive("tells of a killed node at once and fails calls in flight, of both kinds", () =>
    Effect.gen(function*() {
      let asked = 0
      const hang = Effect.suspend(() => {
        asked += 1
        return Effect.never
      })
      const node = yield* TestNode.make({ Ping: () => hang, enqueue: () => hang })
      const connection = yield* connect(node.address)
      const call = yield* Effect.fork(connection.call("Ping", (client) => client.Ping()))
      const request = yield* Effect.fork(connection.request(enqueue, [encodeRequests([])]))
      yield* TestNode.eventually("both calls", () => asked === 2)
      const stoodStill = yield* standStill
      const before = performance.now()

      node.kill()
      yield* connection.closed.pipe(Effect.timeout("10 seconds"))
      const errors = [yield* Effect.flip(Fiber.join(call)), yield* Effect.flip(Fiber.join(request))]
      const later = [
        yield* Effect.flip(connection.call("Ping", (client) => client.Ping())),
        yield* Effect.flip(connection.request(enqueue, [encodeRequests([])]))
      ]

      assert.isBelow(performance.now() - before - stoodStill.sum(), 300)
      for (const error of [...errors, ...later]) assert.instanceOf(error, ClusterUnavailable)
      assert.isFalse(connection.isOpen())
    }))

  it.scopedLive("tells the node of its end, after which nothing is pushed", () =>
    Effect.gen(function*() {
      const ended = yield* Deferred.make<void>()
      let push = (): void => undefined
      const node = yield* TestNode.make({
        attach: (_hello, caller) =>
          Effect.sync(() => {
            push = () => caller.push(encodeToWorker({ _tag: "nodes" }))
            caller.onClosed(() => Deferred.unsafeDone(ended, Exit.void))
            push()
            return { leaseMs: 1_000, sessionId: 7 }
          })
      })
      const scope = yield* Scope.make()
      const connection = yield* Scope.extend(connect(node.address), scope)
      const pushed: Array<unknown> = []
      connection.onPush((frame) => pushed.push(frame))

      const attachment = yield* connection.request(attach, ["w", ["task"], 1])
      push()
      yield* TestNode.eventually("both messages", () => pushed.length === 2)
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(ended)
      push()

      assert.deepStrictEqual(attachment, { leaseMs: 1_000, sessionId: 7 })
      assert.lengthOf(pushed, 2)
    }))

  it.scopedLive("passes large answers and arguments in many pieces, and many calls at once", () =>
    Effect.gen(function*() {
      let rows = 0
      const node = yield* TestNode.make({
        enqueue: (frame) =>
          Effect.map(decodeRequests(frame), (requests) => {
            rows += requests.length
            return { failures: requests.map((_, index) => ({ index, error: refusal("x".repeat(1_000)) })) }
          })
      })
      const connection = yield* connect(node.address)
      const frame = encodeRequests(Array.from({ length: 500 }, (_, index) => request("y".repeat(index))))

      const answers = yield* Effect.all(Array.from({ length: 20 }, () => connection.request(enqueue, [frame])), {
        concurrency: "unbounded"
      })

      assert.strictEqual(rows, 10_000)
      for (const answer of answers) assert.lengthOf(answer.failures, 500)
    }))

  it.scopedLive("refuses arguments that are none; the connection lives on", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({})
      const connection = yield* connect(node.address)
      const args = ["no worker id", "no tasks", -1] as never

      const error = yield* Effect.flip(connection.request(attach, args))

      assert.instanceOf(error, ClusterUnavailable)
      assert.include(error.message, "refused")
      assert.strictEqual(yield* connection.call("Ping", (client) => client.Ping()), "node")
    }))

  it("takes no answer of a report that could not be one, and never throws", () => {
    for (const value of [1e15, -1, 0.5, Number.NaN, 10_001, null, "accepted", ["accepted", "other"], {}]) {
      assert.isUndefined(report.decode(value), String(value))
    }
    assert.deepStrictEqual(report.decode(2), ["accepted", "accepted"])
    assert.deepStrictEqual(report.decode(["stale", "not-owner"]), ["stale", "not-owner"])
  })

  it.scopedLive("costs only its sender what is not of the protocol", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({})
      const connection = yield* connect(node.address)
      const header = (length: number, kind: number, operation: number) => {
        const bytes = Buffer.alloc(preface.length + 12 + 8)
        bytes.set(preface)
        bytes.writeUInt32LE(length, preface.length)
        bytes[preface.length + 4] = kind
        bytes[preface.length + 5] = operation
        return bytes
      }
      const bad = {
        "an HTTP request": Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        "a length above the limit": header(2 ** 32 - 1, kinds.call, 1),
        "an unknown kind": header(8, 9, 1),
        "an unknown operation": header(8, kinds.call, 99),
        "an answer to nothing": header(8, kinds.answer, 0)
      }

      for (const [what, bytes] of Object.entries(bad)) {
        const closed = yield* Effect.async<boolean>((resume) => {
          const [host, port] = node.address.split(":")
          const socket = Net.connect(Number(port), host)
          socket.on("error", () => undefined)
          socket.on("close", () => resume(Effect.succeed(true)))
          socket.write(bytes)
        }).pipe(Effect.timeout("5 seconds"))
        assert.isTrue(closed, what)
      }

      assert.strictEqual(yield* connection.call("Ping", (client) => client.Ping()), "node")
    }))

  it.scopedLive("fails calls in flight when its own scope closes", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const node = yield* TestNode.make({
        Ping: () => Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never)
      })
      const scope = yield* Scope.make()
      const connection = yield* Scope.extend(connect(node.address), scope)
      const call = yield* Effect.fork(connection.call("Ping", (client) => client.Ping()))
      yield* Deferred.await(asked)

      yield* Scope.close(scope, Exit.void)

      const error = yield* Effect.flip(Fiber.join(call))
      assert.instanceOf(error, ClusterUnavailable)
      yield* connection.closed
    }))

  it.scopedLive("gives up a call at its time limit when the node is frozen", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({})
      const connection = yield* connect(node.address)
      node.freeze()

      const error = yield* Effect.flip(connection.call("Ping", (client) => client.Ping(), "100 millis"))

      assert.instanceOf(error, ClusterUnavailable)
      assert.isTrue(connection.isOpen())
    }))

  it.scopedLive("refuses what is no address, and a port nobody listens on", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({})
      node.kill()

      for (const address of ["nonsense", "host:0", "host:99999", node.address]) {
        const error = yield* Effect.flip(connect(address))
        assert.instanceOf(error, ClusterUnavailable)
      }
    }))
})
