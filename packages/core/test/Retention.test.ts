import { assert, describe, it } from "@effect/vitest"
import { Expiries } from "@orrery/core/Expiries"
import * as NodeConfig from "@orrery/core/NodeConfig"
import * as Queue from "@orrery/core/Queue"
import { dayMs, keptDaysOf, longestOf, over, parse, type QueueRetention } from "@orrery/core/Retention"
import { type RunId, unsafeMakeRunId } from "@orrery/core/RunId"

describe("Retention", () => {
  it("is what is said of a queue, before what is said for all", () => {
    assert.deepStrictEqual(keptDaysOf(), { succeeded: 7, failed: 30, cancelled: 30, expired: 30 })
    assert.deepStrictEqual(keptDaysOf(over({ failed: "1 day", expired: "365 days" }, { failed: "forever" })), {
      succeeded: 7,
      failed: 0,
      cancelled: 30,
      expired: 365
    })
    assert.strictEqual(longestOf(keptDaysOf()), 30)
    assert.isUndefined(longestOf(keptDaysOf({ succeeded: "forever" })))
  })

  it("is read from the configuration of a node", () => {
    assert.deepStrictEqual(parse(NodeConfig.retentionDefault), {
      succeeded: "7 days",
      failed: "30 days",
      cancelled: "30 days",
      expired: "30 days"
    })
    assert.deepStrictEqual(parse(" failed = forever, succeeded=1 day"), { failed: "forever", succeeded: "1 day" })
    assert.deepStrictEqual(parse(""), {})
    const wrong = ["failed", "failed=", "failed=2 days", "ready=1 day", "failed=1 day,failed=7 days", "succeeded=none"]
    for (const text of wrong) assert.isUndefined(parse(text), text)
  })

  it("is refused when a queue is declared with what cannot be, by name", () => {
    const refusal = (retention: unknown) => {
      try {
        Queue.make("mail", { version: 1, retention: retention as QueueRetention })
        return "taken"
      } catch (error) {
        return (error as Error).message
      }
    }

    assert.strictEqual(refusal({ failed: "90 days" }), "taken")
    assert.match(refusal({ failed: "2 weeks" }), /^retention.failed must be one of 1 day.* got 2 weeks$/)
    assert.match(refusal({ succeeded: 7 }), /^retention.succeeded must be one of .* got 7$/)
    assert.match(refusal({ succeeded: "none" }), /^retention.succeeded must .* got none$/)
    assert.match(refusal({ running: "1 day" }), /^retention must be .* got running$/)
    assert.match(refusal({}), /^retention must be at least one of/)
    assert.match(refusal("1 day"), /^retention must be an object of .* got 1 day$/)
  })
})

describe("Expiries", () => {
  it("tells each once its period is over, whatever the order of periods", () => {
    const expiries = new Expiries()
    const id = Array.from({ length: 5 }, (_, n) => unsafeMakeRunId(n)) as [RunId, RunId, RunId, RunId, RunId]
    expiries.add(id[0], 7, 0)
    expiries.add(id[1], 1, 10)
    expiries.add(id[2], 1, 20)
    expiries.add(id[3], 0, 0)
    expiries.add(id[4], 1, 30)
    expiries.delete(id[2])

    assert.deepStrictEqual(expiries.take(dayMs + 9), [])
    assert.deepStrictEqual(expiries.take(dayMs + 10), [id[1]])
    assert.deepStrictEqual(expiries.take(dayMs + 29), [])
    assert.deepStrictEqual(expiries.take(400 * dayMs).toSorted(), [id[0], id[4]].toSorted())
    assert.deepStrictEqual(expiries.take(Infinity), [])
  })
})
