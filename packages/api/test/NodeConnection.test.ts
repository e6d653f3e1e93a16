import { assert, describe, it } from "@effect/vitest"
import { ClusterUnavailable, RunNotFound } from "@orrery/core/Errors"
import type { RunId } from "@orrery/core/RunId"
import { Deferred, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { encodeToWorker } from "../src/Frames.js"
import { connect } from "../src/NodeConnection.js"
import * as TestNode from "./TestNode.js"

const id = "01890000-0000-7000-8000-000000000000" as RunId

describe("NodeConnection", { timeout: 30_000 }, () => {
  it.scopedLive("passes answers and typed errors of the node", () =>
    Effect.gen(function*() {
      const node = yield* TestNode.make({ Get: () => new RunNotFound({ runId: id }) })
      const connection = yield* connect(node.address)

      const name = yield* connection.call("Ping", (client) => client.Ping())
      const error = yield* Effect.flip(connection.call("Get", (client) => client.Get({ id })))

      assert.strictEqual(name, "node")
      assert.strictEqual(error._tag, "RunNotFound")
    }))

  it.scopedLive("tells of a killed node at once and fails calls and streams in flight", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const node = yield* TestNode.make({
        Ping: () => Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never),
        Attach: () =>
          Stream.concat(Stream.make(encodeToWorker({ _tag: "attached", leaseMs: 1_000, sessionId: 1 })), Stream.never)
      })
      const connection = yield* connect(node.address)
      const attached = yield* Deferred.make<void>()
      const call = yield* Effect.fork(connection.call("Ping", (client) => client.Ping()))
      const stream = yield* connection.client.Attach({ workerId: "w", tasks: [], credit: 1 }).pipe(
        Stream.runForEach(() => Deferred.succeed(attached, undefined)),
        Effect.fork
      )
      yield* Effect.all([Deferred.await(asked), Deferred.await(attached)])
      const before = performance.now()

      node.kill()
      yield* connection.closed.pipe(Effect.timeout("1 second"))
      const error = yield* Effect.flip(Fiber.join(call))
      const streamExit = yield* Fiber.await(stream)
      const later = yield* Effect.flip(connection.call("Ping", (client) => client.Ping()))

      assert.isBelow(performance.now() - before, 300)
      assert.instanceOf(error, ClusterUnavailable)
      assert.instanceOf(later, ClusterUnavailable)
      assert.isTrue(Exit.isFailure(streamExit))
      assert.isFalse(connection.isOpen())
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
