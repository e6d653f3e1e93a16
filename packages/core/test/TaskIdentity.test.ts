import { assert, describe, it } from "@effect/vitest"
import { whenThereIsRoom } from "@orrery/core/Backpressure"
import { Depths } from "@orrery/core/Depths"
import { InvalidRequest, QueueFull } from "@orrery/core/Errors"
import { debouncedUntil } from "@orrery/core/Identity"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import { backlogOf, ruleOf } from "@orrery/core/RunRequest"
import * as Task from "@orrery/core/Task"
import type * as TaskIdentity from "@orrery/core/TaskIdentity"
import type * as TaskKeys from "@orrery/core/TaskKeys"
import { Effect, Fiber, Schema, TestClock } from "effect"

const Payload = Schema.Struct({ key: Schema.String })
type Payload = typeof Payload.Type
type Options = TaskIdentity.IdentityOptions<Payload> & TaskIdentity.BacklogOptions & TaskKeys.KeyOptions<Payload>

const define = (options: Options) => Task.make("t", { payload: Payload, ...options })
const request = (options: Options, more: Task.EnqueueOptions = {}, key = "a") =>
  Effect.runSync(define(options).request({ key }, more))
const refusalOf = (use: () => unknown): string => {
  try {
    use()
  } catch (error) {
    if (error instanceof InvalidRequest) return error.message
    if (error instanceof Error) return error.message
    throw error
  }
  return "accepted"
}
const key = ({ key }: Payload) => key

describe("identity of a task", () => {
  it("is a rule in its policy and a key in its requests, and nothing where the task has none", () => {
    const plain = request({})
    const given = request({}, { idempotencyKey: "mine" })
    const own = request({ idempotencyKey: key, idempotencyWindow: "1 hour" })
    const unique = request({ unique: {} })
    const debounce = request({ debounce: { key, wait: "2 seconds" } })
    const keepLast = request({ keepLast: { key } })

    assert.isFalse("identity" in plain)
    assert.notInclude(plain.policy, "identity")
    assert.deepStrictEqual([given.identity, ruleOf(given)], ["mine", { _tag: "window", windowMs: 86_400_000 }])
    assert.strictEqual(given.policy, plain.policy)
    assert.deepStrictEqual([own.identity, ruleOf(own)], ["a", { _tag: "window", windowMs: 3_600_000 }])
    assert.deepStrictEqual(
      [unique.identity, ruleOf(unique)],
      ["*", { _tag: "states", states: ["scheduled", "ready", "retrying", "running"] }]
    )
    assert.deepStrictEqual(ruleOf(debounce), { _tag: "debounce", quietMs: 2_000, maxWaitMs: 20_000 })
    assert.deepStrictEqual(debounce.when, { _tag: "delay", ms: 2_000 })
    assert.strictEqual(keepLast.keys, JSON.stringify({ order: "t|a" }))
    assert.strictEqual(request({ throttle: { per: "1 second" } }, { identityKey: "other" }).identity, "other")
  })

  it("is refused where options contradict each other, naming both", () => {
    const refusals: ReadonlyArray<readonly [() => unknown, string]> = [
      [() => define({ idempotencyKey: key, unique: {} }), "unique must be absent when idempotencyKey is given"],
      [() => define({ debounce: { wait: 10 }, keepLast: {} }), "keepLast must be absent when debounce is given"],
      [() => define({ keepLast: {}, orderingKey: key }), "orderingKey must be absent when keepLast is given"],
      [() => define({ throttle: { per: 1 }, idempotencyWindow: 5 }), "idempotencyWindow must be absent when throttle is given"],
      [() => define({ unique: { while: ["ready"], window: 5 } }), "unique.window must be absent when unique.while is given"],
      [() => define({ unique: { while: [] } }), "unique.while must be some of"],
      [() => define({ unique: { while: ["failed" as "ready"] } }), "unique.while must be some of"],
      [() => define({ debounce: { wait: 100, maxWait: 50 } }), "debounce.maxWait must be at least debounce.wait, 100 ms, got 50"],
      [() => define({ throttle: { per: 0 } }), "throttle.per must be 1 to"],
      [() => define({ idempotencyWindow: "2 years" as "2 days" }), "idempotencyWindow must be 1 to"],
      [() => define({ maxDepthPerTenant: 5, fairnessKey: key }), "maxDepthPerTenant must be absent without maxDepth"],
      [() => define({ maxDepth: 5, maxDepthPerTenant: 5 }), "maxDepthPerTenant must be absent without fairnessKey"],
      [() => define({ maxDepth: 5, maxDepthPerTenant: 6, fairnessKey: key }), "an integer from 1 to maxDepth, 5, got 6"],
      [() => define({ maxDepth: 100_001 }), "maxDepth must be an integer from 1 to 100000, got 100001"],
      [() => request({ unique: {} }, { idempotencyKey: "k" }), "idempotencyKey must be absent for a task with unique"],
      [() => request({}, { identityKey: "k" }), "identityKey must be absent for a task without unique"],
      [() => request({ debounce: { wait: 10 } }, { delay: 5 }), "delay must be absent for a task with debounce"],
      [() => request({ keepLast: {} }, { orderingKey: "o" }), "orderingKey must be absent for a task with keepLast"],
      [() => request({}, { idempotencyKey: "" }), "identity must be a text of 1 to 200 characters"],
      [() => request({ keepLast: { key } }, {}, "x".repeat(199)), "keepLast.key must be at most 198 characters"]
    ]
    for (const [use, message] of refusals) assert.include(refusalOf(use), message)
  })

  it("decides the partition of a run, and is refused beside another key there", () => {
    const partitions = QueuePartitions.parse("default=8")!
    const of = (options: Options, more: Task.EnqueueOptions, key: string) =>
      QueuePartitions.partitionOf(partitions, request(options, more, key))
    const places = Array.from({ length: 20 }, (_, n) => of({}, { idempotencyKey: "same" }, `${n}`))
    const spread = Array.from({ length: 200 }, (_, n) => of({}, { idempotencyKey: `${n}` }, ""))
    const behind = Array.from({ length: 20 }, () => of({ keepLast: { key } }, {}, "k"))

    assert.deepStrictEqual([new Set(places).size, new Set(spread).size, new Set(behind).size], [1, 8, 1])
    const both = request({ idempotencyKey: key, concurrency: { limit: 1, key } })
    assert.include(QueuePartitions.keysProblem(partitions, both)?.message, "at most one key of identity, order")
    assert.isUndefined(QueuePartitions.keysProblem(partitions, request({ keepLast: { key } })))
  })

  it("waits for quiet, but no longer than it may", () => {
    const rule = { quietMs: 100, maxWaitMs: 250 }
    assert.deepStrictEqual([1_000, 1_100, 1_200, 1_300].map((now) => debouncedUntil(rule, 1_000, now)), [1_100, 1_200, 1_250, 1_300])
  })
})

describe("Depths", () => {
  const bound = backlogOf(request({ maxDepth: 3, maxDepthPerTenant: 2, fairnessKey: key }))!
  const keys = (tenant: string) => JSON.stringify({ tenant })

  it("counts before it answers, then keeps count", () => {
    const depths = new Depths({ namespace: "n", queue: "q" })
    assert.strictEqual(depths.refusal(bound, keys("a")), "count")

    depths.begin({ groups: [{ keys: keys("a"), runs: 1 }], complete: true }, [keys("a")])

    const quota = depths.refusal(bound, keys("a"))
    assert.deepInclude(quota, { _tag: "QuotaExceeded", tenant: "a", limit: 2, actual: 2 })
    assert.isUndefined(depths.refusal(bound, keys("b")))
    depths.took(keys("b"))
    assert.deepInclude(depths.refusal(bound, null), { _tag: "QueueFull", limit: 3, actual: 3 })
    depths.ended(keys("a"), 10)
    assert.isUndefined(depths.refusal(bound, keys("a")))
  })

  it("counts again where it stopped counting, once that is not enough to refuse", () => {
    const depths = new Depths({ namespace: "n", queue: "q" })
    depths.begin({ groups: [{ keys: null, runs: 6 }], complete: false }, [])
    for (let n = 0; n < 3; n++) {
      assert.deepInclude(depths.refusal(bound, null), { _tag: "QueueFull" })
      depths.ended(null, n)
    }
    assert.deepInclude(depths.refusal(bound, null), { _tag: "QueueFull", actual: 3 })
    depths.ended(null, 9)
    assert.strictEqual(depths.refusal(bound, null), "count")
  })
})

describe("a full queue", () => {
  const full = new QueueFull({ namespace: "n", queue: "q", limit: 1, actual: 1, retryAfterMs: 400 })

  it.effect("fails, or is waited for as long as the caller says", () =>
    Effect.gen(function*() {
      let asked = 0
      const ask = Effect.suspend(() => ++asked > 3 ? Effect.succeed("in") : Effect.fail(full))

      assert.strictEqual(yield* Effect.flip(whenThereIsRoom(ask, {})), full)
      const waiting = yield* Effect.fork(whenThereIsRoom(ask, { whenFull: "wait", waitAtMost: "1 second" }))
      yield* TestClock.adjust("1 second")
      const late = yield* Effect.fork(Effect.flip(whenThereIsRoom(Effect.fail(full), { whenFull: "wait", waitAtMost: 500 })))
      yield* TestClock.adjust("600 millis")

      assert.strictEqual(yield* Fiber.join(waiting), "in")
      assert.strictEqual(yield* Fiber.join(late), full)
      assert.strictEqual(asked, 4)
    }))

  it.effect("is waited for only by those who say so", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(whenThereIsRoom(Effect.fail(full), { waitAtMost: 5 }))
      assert.include(error.message, "waitAtMost must be absent unless whenFull is wait")
    }))
})
