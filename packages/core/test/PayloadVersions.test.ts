import { assert, describe, it } from "@effect/vitest"
import { InvalidRequest } from "@orrery/core/Errors"
import { requestProblem } from "@orrery/core/RunRequest"
import * as Task from "@orrery/core/Task"
import { Effect, Schema } from "effect"

const V1 = Schema.Struct({ cents: Schema.Number })
const V2 = Schema.Struct({ cents: Schema.Number, currency: Schema.String })
const V3 = Schema.Struct({ amount: Schema.Int.pipe(Schema.positive()), at: Schema.Date })

const chain = Task.versions(V1)
  .next(V2, (v1) => ({ ...v1, currency: "EUR" }))
  .next(V3, (v2) => {
    if (v2.currency === "") throw new Error("no currency")
    return { amount: v2.cents, at: new Date(0) }
  })
const charge = Task.make("charge", { payload: chain })
const read = (payload: unknown, version?: number) =>
  charge.payloadOf({ payload: JSON.stringify(payload), ...version === undefined ? {} : { version } })

describe("Task.versions", () => {
  it.effect("names the version of new runs with their task, and version 1 not at all", () =>
    Effect.gen(function*() {
      const { payload, task } = yield* charge.request({ amount: 5, at: new Date(7) })
      const plain = yield* Task.make("charge", { payload: V1 }).request({ cents: 1 })

      assert.deepStrictEqual([task, payload], ["charge@3", `{"amount":5,"at":"1970-01-01T00:00:00.007Z"}`])
      assert.strictEqual(plain.task, "charge")
      assert.strictEqual(charge.version, 3)
      assert.isUndefined(requestProblem(yield* charge.request({ amount: 5, at: new Date(7) }), 1000))
    }))

  it.effect("brings each older version through the chain", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* read({ cents: 5 }), { amount: 5, at: new Date(0) })
      assert.deepStrictEqual(yield* read({ cents: 6, currency: "USD" }, 2), { amount: 6, at: new Date(0) })
      assert.deepStrictEqual(yield* read({ amount: 7, at: "1970-01-01T00:00:00.009Z" }, 3), {
        amount: 7,
        at: new Date(9)
      })
    }))

  it.effect("says which version it could not bring to the newest, and why", () =>
    Effect.gen(function*() {
      const thrown = yield* Effect.flip(read({ cents: 1, currency: "" }, 2))
      // What the chain makes of it, the newest schema refuses.
      const refused = yield* Effect.flip(read({ cents: -1 }))
      const malformed = yield* Effect.flip(read({ currency: "EUR" }, 2))
      const newer = yield* Effect.flip(read({}, 4))

      assert.include(thrown.issue, "version 2 could not be brought to the newest: no currency")
      assert.include(refused.issue, "version 1 could not be brought to the newest")
      assert.include(malformed.issue, "cents")
      assert.include(newer.issue, "version 4 is none of those that are read")
    }))

  it.effect("reads no more what is not in the chain", () =>
    Effect.gen(function*() {
      const later = Task.make("charge", {
        payload: Task.versions(V2, { from: 2 }).next(V3, () => ({ amount: 1, at: new Date(0) }))
      })

      assert.strictEqual(later.version, 3)
      const gone = yield* Effect.flip(later.payloadOf({ payload: "{}" }))
      assert.include(gone.issue, "version 1 is none of those that are read")
    }))

  it("refuses versions and names out of bounds", () => {
    assert.throws(() => Task.versions(V1, { from: 0 }), InvalidRequest, "version must be 1 to 9999")
    assert.throws(
      () => Task.make("a".repeat(199), { payload: chain }),
      InvalidRequest,
      "200 characters with its version"
    )
    assert.throws(() => Task.make("charge@2", { payload: V1 }), InvalidRequest)
  })

  it("refuses names that only look like versions", () =>
    Effect.gen(function*() {
      const request = yield* charge.request({ amount: 5, at: new Date(7) })
      for (
        const task of ["charge@", "charge@0", "charge@01", "charge@10000", "charge@2@2", "@2", `${"a".repeat(199)}@2`]
      ) {
        assert.instanceOf(requestProblem({ ...request, task }, 1000), InvalidRequest, task)
      }
    }).pipe(Effect.runPromise))

  it("is checked by the compiler", () => {
    const wrong = () => [
      // @ts-expect-error the second version wants a currency
      Task.versions(V1).next(V2, (v1) => v1),
      // @ts-expect-error the step is given the version before it
      Task.versions(V1).next(V2, (v1) => ({ cents: v1.amount, currency: "" })),
      // @ts-expect-error the payload of a task is the newest
      charge.request({ cents: 5 })
    ]
    assert.isFunction(wrong)
  })
})
