/** A node in a process of an application, whose event loop stands still. */
import { assert, it } from "@effect/vitest"
import { Orrery, Task } from "@orrery/orrery"
import * as TestPostgres from "@orrery/testing/TestPostgres"
import { Effect, Fiber, Schema } from "effect"

const echo = Task.make("echo", { payload: Schema.Number, success: Schema.Number, queue: "echo" })

it.scopedLive("tells the application that its node must not go on, and why", () =>
  Effect.gen(function*() {
    const databaseUrl = yield* TestPostgres.migratedDatabase
    const Node = Orrery.layerNode({
      databaseUrl,
      eventLoopLagMaxMs: 2_000,
      handlers: echo.toLayer((n) => Effect.succeed(n))
    })
    const error = yield* Effect.gen(function*() {
      const fenced = yield* Effect.fork(Effect.flip(Orrery.fenced))
      assert.strictEqual(yield* echo.execute(1), 1)
      const until = performance.now() + 2_600
      while (performance.now() < until) { /* A computation that never yields. */ }
      return yield* Fiber.join(fenced)
    }).pipe(Effect.provide(Node))

    assert.strictEqual(error._tag, "NodeFenced")
    assert.match(error.reason, /^the event loop stood still for \d+ ms, the limit is 2000$/)
  }))
