import { assert, describe, it } from "@effect/vitest"
import * as ConcurrencyLimiter from "@orrery/core/ConcurrencyLimiter"
import { InvalidRequest } from "@orrery/core/Errors"
import { permitRuleOf, rateRuleOf } from "@orrery/core/LimiterTerms"
import * as Queue from "@orrery/core/Queue"
import * as RateLimiter from "@orrery/core/RateLimiter"
import { parseKeys } from "@orrery/core/RunKeys"
import { defaultPolicy, parsePolicy } from "@orrery/core/RunRequest"
import * as Task from "@orrery/core/Task"
import type { LimiterOptions } from "@orrery/core/TaskLimiters"
import { Effect, Schema } from "effect"

const Payload = Schema.Struct({ lines: Schema.Number })
type Payload = typeof Payload.Type

const partner = RateLimiter.make("partner", { limit: 10, per: "1 second" })
const lines = RateLimiter.make<Payload>("lines", { limit: 100, per: "1 second", cost: (payload) => payload.lines })
const gpu = ConcurrencyLimiter.make("gpu", { limit: 2, whenGone: "open" })

const requestOf = (options: LimiterOptions<Payload>, payload: Payload = { lines: 3 }) =>
  Effect.runSync(Effect.either(Task.make("t", { payload: Payload, ...options }).request(payload)))

const refusalOf = (use: () => unknown): string => {
  try {
    use()
  } catch (error) {
    if (error instanceof InvalidRequest) return error.message
    throw error
  }
  return "accepted"
}

describe("limiters of a task", () => {
  it("are said by the policy of its runs, and cost nothing where there are none", () => {
    const plain = requestOf({})
    const limited = requestOf({ limiters: [partner, gpu] })

    if (plain._tag === "Left" || limited._tag === "Left") throw new Error("refused")
    assert.notInclude(plain.right.policy, "limiters")
    assert.isNull(limited.right.keys)
    const policy = parsePolicy(limited.right.policy)
    assert.deepStrictEqual("limiters" in policy ? policy.limiters : undefined, [
      { kind: "rate", name: "partner", limit: 10, perMs: 1_000 },
      { kind: "permit", name: "gpu", limit: 2, leaseMs: 10_000, whenGone: "open" }
    ])
  })

  it("are the limits that handlers know by the same names", () => {
    const relaxed = RateLimiter.make("r", { limit: 50, per: "2 seconds", exactness: "relaxed", burst: 7 })

    assert.deepStrictEqual(rateRuleOf(partner.terms), partner.rule)
    assert.deepStrictEqual(rateRuleOf(relaxed.terms), relaxed.rule)
    assert.deepStrictEqual(permitRuleOf(gpu.terms), gpu.rule)
    // In memory a rule is known by its text.
    assert.strictEqual(JSON.stringify(rateRuleOf(relaxed.terms)), JSON.stringify(relaxed.rule))
  })

  it("cost what the payload says, run by run", () => {
    const request = requestOf({ limiters: [lines, partner] })

    if (request._tag === "Left") throw new Error("refused")
    assert.deepStrictEqual(parseKeys(request.right.keys!), { costs: { lines: 3 } })
  })

  it("refuse a run that costs more than there ever is", () => {
    const request = requestOf({ limiters: lines }, { lines: 101 })

    assert.include(
      request._tag === "Left" ? request.left.message : "accepted",
      "cost must be a whole number, 1 to limit (100)"
    )
  })

  it("are refused where they contradict each other", () => {
    const another = RateLimiter.make("partner", { limit: 20, per: "1 second" })
    const many = Array.from({ length: 5 }, (_, n) => RateLimiter.make(`l${n}`, { limit: 1, per: "1 second" }))

    assert.include(refusalOf(() => requestOf({ limiters: [partner, another] })), "each of another name, got partner")
    assert.include(refusalOf(() => requestOf({ limiters: many })), "at most 4, got 5")
  })

  it("may be said of a queue, where what a start costs is a number", () => {
    const { declaration } = Queue.make("images", { version: 1, limiters: [partner, gpu] })

    assert.deepStrictEqual("limits" in declaration ? declaration.limits.limiters : undefined, [
      partner.terms,
      gpu.terms
    ])
    const priced = lines as unknown as RateLimiter.RateLimiter
    assert.include(
      refusalOf(() => Queue.make("images", { version: 1, limiters: priced })),
      "limiters must be each of a cost that is a number"
    )
  })

  it("that no owner could read are refused with the policy", () => {
    const over = (perMs: number) =>
      JSON.stringify({ ...defaultPolicy, limiters: [{ kind: "rate", name: "x", limit: 1, perMs }] })

    assert.notInstanceOf(parsePolicy(over(60_000)), InvalidRequest)
    assert.instanceOf(parsePolicy(over(120_000)), InvalidRequest)
  })
})
