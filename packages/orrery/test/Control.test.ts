import { assert, describe, it } from "@effect/vitest"
import { Orrery, Queue, Queues, RetryPolicy, Runs, Task } from "@orrery/orrery"
import { Deferred, Effect, FiberId, Schema } from "effect"

const open = Deferred.unsafeMake<void>(FiberId.none)
const gate = Task.make("gate", { payload: Schema.Void, queue: "gated" })
const handlers = gate.toLayer(() => Deferred.await(open))
const orphan = Task.make("orphan", { payload: Schema.Void, queue: "gated", retry: RetryPolicy.none })
const deep = Task.make("deep", { payload: Schema.String, queue: "deep", fairnessKey: (tenant) => tenant })

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

  it.scopedLive("bounds what waits, also of tasks that say nothing of it; at run time, until that is taken back", () =>
    Effect.gen(function*() {
      const queues = yield* Queues
      const of = { namespace: "default", queue: "deep", by: "ann" }
      yield* Queue.reconcile([Queue.make("deep", { version: 1, maxDepth: 2, maxDepthPerTenant: 1 })])
      yield* deep.enqueue("a")
      const tenant = yield* Effect.flip(deep.enqueue("a"))
      yield* deep.enqueue("b")
      const declared = yield* Effect.flip(deep.enqueue("c"))

      yield* queues.call({ _tag: "setLimits", ...of, limits: { backlog: { maxDepth: 3 } } })
      const third = yield* deep.enqueue("a")
      const said = yield* Effect.flip(deep.enqueue("d"))
      yield* queues.call({ _tag: "resetLimits", ...of })
      yield* (yield* Runs).cancel(third)
      const again = yield* Effect.flip(deep.enqueue("c"))

      assert.deepInclude(tenant, { _tag: "QuotaExceeded", tenant: "a", limit: 1, actual: 1 })
      assert.deepInclude(declared, { _tag: "QueueFull", queue: "deep", limit: 2, actual: 2 })
      assert.deepInclude(said, { _tag: "QueueFull", limit: 3, actual: 3 })
      assert.deepInclude(again, { _tag: "QueueFull", limit: 2, actual: 2 })
    }).pipe(Effect.provide(Orrery.layerMemory({ handlers }))))

  it("refuses a wrong declaration, and names the option", () => {
    assert.throws(() => Queue.make("q", { version: 1, concurrency: 0 }), /concurrency must be .* got 0/)
    assert.throws(() => Queue.make("q", { version: 0 }), /version must be .* got 0/)
    assert.throws(() => Queue.make("q", { version: 1, rate: { limit: 5, per: "2 days" } }), /rate.perMs must be/)
    assert.throws(() => Queue.make("q", { version: 1, maxDepth: 0 }), /maxDepth must be .* got 0/)
    assert.throws(() => Queue.make("q", { version: 1, maxDepthPerTenant: 3 }), /absent without maxDepth/)
    assert.throws(
      () => Queue.make("q", { version: 1, maxDepth: 2, maxDepthPerTenant: 3 }),
      /at most backlog.maxDepth, 2/
    )
    assert.throws(() => Queue.make("no spaces", { version: 1 }), /queue/)
  })
})
