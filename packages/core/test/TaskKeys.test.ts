import { assert, describe, it } from "@effect/vitest"
import { InvalidRequest } from "@orrery/core/Errors"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import { parseKeys } from "@orrery/core/RunKeys"
import * as Task from "@orrery/core/Task"
import type { KeyOptions } from "@orrery/core/TaskKeys"
import { Effect, Schema } from "effect"

const Payload = Schema.Struct({ key: Schema.String })
type Payload = typeof Payload.Type

const define = (options: KeyOptions<Payload>) => Task.make("t", { payload: Payload, ...options })
const keysOf = (options: KeyOptions<Payload>, key = "a", overrides = {}) =>
  Effect.runSync(Effect.either(define(options).request({ key }, overrides)))

/** The field that is named, and what it may be. */
const refusalOf = (use: () => unknown): string => {
  try {
    use()
  } catch (error) {
    if (error instanceof InvalidRequest) return error.message
    throw error
  }
  return "accepted"
}

describe("keys of a task", () => {
  it("are made of the payload, and are none where the task has none", () => {
    const plain = keysOf({})
    const told = keysOf({
      concurrency: [{ key: ({ key }) => key, limit: 2 }, { name: "gpu", limit: 5 }],
      rateLimit: { limit: 10, per: "1 second", cost: 2 },
      orderingKey: ({ key }) => `order ${key}`,
      fairnessKey: () => "acme",
      fairnessWeight: () => 3
    })

    assert.isNull(plain._tag === "Right" ? plain.right.keys : "failed")
    assert.deepStrictEqual(parseKeys(told._tag === "Right" ? told.right.keys! : "failed"), {
      order: "order a",
      tenant: "acme",
      weight: 3,
      limits: [{ name: "t", key: "a", limit: 2 }, { name: "gpu", key: "*", limit: 5 }],
      rates: [{ name: "t", key: "*", limit: 10, perMs: 1_000, cost: 2 }]
    })
  })

  it("give way to those of the call", () => {
    const told = keysOf({ orderingKey: ({ key }) => key }, "a", { orderingKey: "mine", fairnessKey: "acme" })

    assert.deepStrictEqual(parseKeys(told._tag === "Right" ? told.right.keys! : ""), { order: "mine", tenant: "acme" })
  })

  it("that no run can have are refused with the enqueue, and nothing is sent", () => {
    const long = keysOf({ orderingKey: ({ key }) => key }, "x".repeat(201))
    const empty = keysOf({ concurrency: { key: ({ key }) => key, limit: 1 } }, "")
    const nul = keysOf({ fairnessKey: ({ key }) => key }, "a\u0000")

    for (const [answer, field] of [[long, "orderingKey"], [empty, "concurrency.key"], [nul, "fairnessKey"]] as const) {
      assert.include(answer._tag === "Left" ? answer.left.message : "accepted", `${field} must be a text of 1 to 200`)
    }
  })

  it("that no task can have are refused with its definition, by name", () => {
    const refused: ReadonlyArray<readonly [KeyOptions<Payload>, string]> = [
      [{ concurrency: { limit: 0 } }, "concurrency.limit must be an integer from 1 to 100000, got 0"],
      [{ concurrency: { limit: 1, name: "no spaces" } }, "concurrency.name must be"],
      [{ concurrency: [{ limit: 1 }, { limit: 2 }] }, "concurrency.name must be another one"],
      [{ rateLimit: { limit: 5, per: "0 millis" } }, "rateLimit.per must be"],
      [{ rateLimit: { limit: 5, per: "1 second", cost: 6 } }, "rateLimit.cost must be an integer from 1 to 5, got 6"],
      [{ rateLimit: { limit: 1.5, per: "1 second" } }, "rateLimit.limit must be"],
      [{ fairnessWeight: () => 2 }, "fairnessWeight must be absent without a fairnessKey"]
    ]
    for (const [options, reason] of refused) assert.include(refusalOf(() => define(options)), reason)
  })
})

describe("keys in a queue with several partitions", () => {
  const partitions = QueuePartitions.parse("mail=8")!
  const run = (keys: object, id: string) => (
    { namespace: "default", queue: "mail", task: "t", policy: "{}", id, keys: JSON.stringify(keys) }
  )

  it("decide where a run goes, so that one owner has all of a key", () => {
    const places = Array.from(
      { length: 50 },
      (_, n) => QueuePartitions.partitionOf(partitions, run({ order: "same", tenant: `t${n}` }, `id-${n}`))
    )
    const spread = Array.from(
      { length: 200 },
      (_, n) => QueuePartitions.partitionOf(partitions, run({ order: `key-${n}` }, "id"))
    )

    assert.strictEqual(new Set(places).size, 1)
    assert.strictEqual(new Set(spread).size, 8)
  })

  it("are refused where no one owner could keep both", () => {
    const limit = (name: string) => ({ name, key: "a", limit: 1 })
    const two = run({ limits: [limit("one"), limit("two")] }, "id")

    assert.include(
      QueuePartitions.keysProblem(partitions, two)?.message,
      "at most one key of identity, order, concurrency or rate"
    )
    assert.isUndefined(QueuePartitions.keysProblem(partitions, { ...two, queue: "other" }))
    assert.isUndefined(QueuePartitions.keysProblem(partitions, run({ limits: [limit("one")], tenant: "t" }, "id")))
  })
})
