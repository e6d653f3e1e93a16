import { assert, describe, it } from "@effect/vitest"
import * as LimitAsk from "@orrery/core/LimitAsk"
import * as MemoryLimitStore from "@orrery/core/MemoryLimitStore"
import { Effect, Fiber, Option, Schema, TestClock } from "effect"
import * as LiveNode from "../src/LiveNode.js"
import * as RemoteLimits from "../src/RemoteLimits.js"
import * as TestNode from "./TestNode.js"

const rate = { name: "calls", limit: 3, perMs: 10_000, exactness: "strict", burst: 3 } as const
const permit = { name: "gpu", limit: 1, leaseMs: 5_000.5, exactness: "strict" } as const
const request = { min: 1, want: 2, validMs: 12.5 } as const

const limitsOf = (node: { readonly address: string }) => Effect.map(LiveNode.make([node.address]), RemoteLimits.make)

describe("RemoteLimits", () => {
  it.scopedLive("asks a node over its connection, which answers as its store does", () =>
    Effect.gen(function*() {
      const store = yield* MemoryLimitStore.make
      const node = yield* TestNode.make({ AskLimit: ({ ask }) => LimitAsk.answer(store, ask) })
      const limits = yield* limitsOf(node)

      const granted = [yield* limits.grant(rate, request), yield* limits.grant(rate, request)]
      const nothing = yield* limits.grant(rate, request)
      const held = [yield* limits.acquire(permit, "a"), yield* limits.acquire(permit, "b")]
      const renewed = [yield* limits.renew(permit, "a"), yield* limits.renew(permit, "b")]
      yield* limits.release(permit, "a")
      const next = yield* limits.acquire(permit, "b")

      assert.deepStrictEqual(granted.map((each) => each.granted), [2, 1])
      assert.strictEqual(nothing.granted, 0)
      assert.isAbove(nothing.waitMs, 9_000)
      assert.deepStrictEqual(held.map((each) => each.isHeld), [true, false])
      assert.isAbove(held[1]!.waitMs, 4_000)
      assert.deepStrictEqual([renewed, next.isHeld], [[true, false], true])
    }))

  it.scopedLive("cannot ask a node of an earlier release", () =>
    Effect.gen(function*() {
      const old = yield* TestNode.make({ AskLimit: () => Effect.dieMessage("Unknown request tag: AskLimit") })

      const unknown = yield* Effect.flip((yield* limitsOf(old)).grant(rate, request))

      assert.strictEqual(unknown.reason, "the node is of a release that cannot be asked")
    }))

  it("asks nothing that no limit can be", () => {
    const grant = { _tag: "grant", rule: rate, ...request }
    const acquire = { _tag: "acquire", rule: permit, holder: "a" }
    const isAsk = Schema.is(LimitAsk.LimitAsk)

    assert.isTrue([grant, acquire].every((ask) => isAsk(ask)))
    assert.isFalse([
      { ...grant, rule: { ...rate, limit: 0 } },
      { ...grant, rule: { ...rate, name: "two words" } },
      { ...grant, want: 1e9 },
      { ...grant, validMs: Infinity },
      { ...acquire, rule: { ...permit, leaseMs: -1 } },
      { ...acquire, holder: "a".repeat(1_000) }
    ].some((ask) => isAsk(ask)))
  })

  it.effect("gives up after a while, also where it may not be interrupted", () =>
    Effect.gen(function*() {
      const nowhere = {
        connection: Effect.never,
        current: () => undefined,
        strike: () => Effect.void,
        praise: () => {}
      }
      const asking = yield* Effect.fork(
        Effect.uninterruptible(Effect.flip(RemoteLimits.make(nowhere).release(permit, "a")))
      )

      yield* TestClock.adjust("1 seconds")
      const before = yield* Fiber.poll(asking)
      yield* TestClock.adjust("1 seconds")

      assert.isTrue(Option.isNone(before))
      assert.strictEqual((yield* Fiber.join(asking)).reason, "no node answers")
    }))
})
