import { assert, describe, it } from "@effect/vitest"
import { Orrery, Queue, Queues, RetryPolicy, Task } from "@orrery/orrery"
import { Deferred, Effect, FiberId, Schema } from "effect"

const open = Deferred.unsafeMake<void>(FiberId.none)
const gate = Task.make("gate", { payload: Schema.Void, queue: "gated" })
const handlers = gate.toLayer(() => Deferred.await(open))
const orphan = Task.make("orphan", { payload: Schema.Void, queue: "gated", retry: RetryPolicy.none })

describe("control of a queue, from the application", () => {
  it.scopedLive("declares, pauses, explains and resumes", () =>
    Effect.gen(function*() {
      const queues = yield* Queues
      const of = { namespace: "default", queue: "gated" }
      yield* Queue.reconcile([Queue.make("gated", { version: 1, concurrency: 1 })])
      yield* queues.call({ _tag: "pause", ...of, by: "ann", why: "leak" })
      const id = yield* gate.enqueue()
      const second = yield* gate.enqueue()
      const nobody = yield* orphan.enqueue()

      const paused = yield* gate.explain(id)
      yield* queues.call({ _tag: "resume", ...of, by: "ann" })
      const running = yield* gate.explain(id).pipe(
        Effect.delay("5 millis"),
        Effect.repeat({ until: ({ reason }) => reason._tag === "Running" })
      )
      const blocked = yield* gate.explain(second)
      const alone = yield* orphan.explain(nobody)
      yield* Deferred.succeed(open, undefined)
      yield* gate.result(second)
      const final = yield* gate.explain(id)

      assert.deepInclude(paused.reason, { _tag: "Paused", by: "ann", why: "leak" })
      assert.deepInclude(blocked.reason, { _tag: "Blocked", limit: null, most: 1, running: 1, holders: [id] })
      assert.strictEqual(running.state, "running")
      assert.deepStrictEqual(alone.reason, { _tag: "NoWorker", task: "orphan" })
      assert.deepInclude(final.reason, { _tag: "Final", state: "succeeded" })
      assert.strictEqual((yield* queues.get(of)).revision, 3)
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers }))))

  it("refuses a wrong declaration, and names the option", () => {
    assert.throws(() => Queue.make("q", { version: 1, concurrency: 0 }), /concurrency must be .* got 0/)
    assert.throws(() => Queue.make("q", { version: 0 }), /version must be .* got 0/)
    assert.throws(() => Queue.make("q", { version: 1, rate: { limit: 5, per: "2 days" } }), /rate.perMs must be/)
    assert.throws(() => Queue.make("no spaces", { version: 1 }), /queue/)
  })
})
