import { assert, describe, it } from "@effect/vitest"
import { InvalidRequest } from "@orrery/core/Errors"
import { fingerprint } from "@orrery/core/fingerprint"
import * as Handlers from "@orrery/core/Handlers"
import * as Retry from "@orrery/core/Retry"
import { RetryBudgets } from "@orrery/core/RetryBudgets"
import type { Entry } from "@orrery/core/Entry"
import * as RetryPolicy from "@orrery/core/RetryPolicy"
import type { Outcome } from "@orrery/core/Run"
import { parsePolicy } from "@orrery/core/RunRequest"
import * as Task from "@orrery/core/Task"
import { Effect, Exit, Layer, Schema } from "effect"

class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {}) {}
class BadInput extends Schema.TaggedError<BadInput>()("BadInput", { field: Schema.String }) {}
const Failure = Schema.Union(RateLimited, BadInput)
const payload = Schema.Struct({ n: Schema.Number })
const base = { payload, error: Failure }

const policyOf = (task: { readonly request: (payload: { readonly n: number }) => Effect.Effect<unknown, unknown> }) =>
  parsePolicy((Effect.runSync(task.request({ n: 1 })) as { readonly policy: string }).policy)

const refusalOf = (use: () => unknown): string => {
  try {
    use()
  } catch (error) {
    return error instanceof InvalidRequest ? error.message : `defect: ${String(error)}`
  }
  return "accepted"
}

describe("retry and times of a task", () => {
  it("travel in the policy of its runs", () => {
    const patient = RetryPolicy.fixed({ maxAttempts: 20, delay: "1 minute", jitter: 0 })
    const task = Task.make("t", {
      ...base,
      retry: { default: RetryPolicy.none, byTag: { RateLimited: patient, BadInput: "never" } },
      retryBudget: { retries: 10, per: "1 minute", by: "fairnessKey" },
      fairnessKey: () => "acme",
      timeout: "5 seconds",
      queueTtl: "1 minute",
      deadline: "1 hour"
    })

    assert.deepStrictEqual(task.retry, RetryPolicy.none)
    assert.deepStrictEqual(policyOf(task), {
      retry: RetryPolicy.none,
      byTag: { RateLimited: patient, BadInput: "never" },
      retryBudget: { retries: 10, perMs: 60_000, by: "fairnessKey" },
      timeoutMs: 5_000,
      queueTtlMs: 60_000,
      deadlineMs: 3_600_000
    })
    assert.deepStrictEqual(policyOf(Task.make("t", base)), { retry: RetryPolicy.standard, timeoutMs: 0 })
  })

  it("take tags of the task's own errors only, by the compiler", () => {
    Task.make("t", { ...base, retry: { byTag: { RateLimited: RetryPolicy.none } } })
    // @ts-expect-error no error of the task has this tag
    Task.make("t", { ...base, retry: { byTag: { RateLimitd: RetryPolicy.none } } })
    // @ts-expect-error neither a policy nor "never"
    const newer = () => Task.make("t", { ...base, retry: { byTag: { BadInput: "newer" } } })
    assert.include(refusalOf(newer), "retry.byTag.BadInput must be a RetryPolicy or \"never\", got newer")
    // @ts-expect-error errors without a tag have no policy of their own
    Task.make("t", { payload, error: Schema.String, retry: { byTag: { RateLimited: "never" } } })
    // @ts-expect-error a task without errors has no tags
    const untagged = () => Task.make("t", { payload, retry: { byTag: { RateLimited: "never" } } })
    assert.include(refusalOf(untagged), "retry.byTag must be absent without an error")
    // @effect-diagnostics-next-line *:off
    // @ts-expect-error not an error of the task
    Task.make("t", { payload, error: BadInput }).toLayer(() => Retry.after("1 second", new RateLimited()))
    Task.make("t", { payload, error: BadInput }).toLayer(() => Retry.never(new BadInput({ field: "n" })))
  })

  it("are refused where they contradict each other, naming both", () => {
    const refused: ReadonlyArray<readonly [Omit<Parameters<typeof Task.make>[1], "payload">, RegExp]> = [
      [
        { timeout: "10 seconds", heartbeatTimeout: "20 seconds" },
        /heartbeatTimeout must be shorter than the timeout, 10000 ms, got 20000 ms/
      ],
      [{ timeout: "10 seconds", heartbeatTimeout: "10 seconds" }, /heartbeatTimeout must be shorter than the timeout/],
      [
        { deadline: "10 seconds", heartbeatTimeout: "20 seconds" },
        /heartbeatTimeout must be shorter than the deadline/
      ],
      [{ timeout: "10 seconds", deadline: "5 seconds" }, /timeout must be at most the deadline, 5000 ms, got 10000 ms/],
      [{ queueTtl: "10 seconds", deadline: "5 seconds" }, /queueTtl must be at most the deadline/],
      [{ queueTtl: "0 seconds" }, /queueTtl must be 1 to/],
      [{ deadline: "20000 days" }, /deadline must be 1 to/],
      [{ timeout: "31 days" }, /timeout must be 0 to/],
      [
        { retry: RetryPolicy.none, retryBudget: { retries: 1, per: "1 second" } },
        /retryBudget must be absent when retry allows one attempt/
      ],
      [
        { retryBudget: { retries: 1, per: "1 second", by: "orderingKey" } },
        /retryBudget.by must be task, as the task has no orderingKey/
      ],
      [{ retryBudget: { retries: 0, per: "1 second" } }, /retryBudget.retries must be an integer/],
      [{ retryBudget: { retries: 1, per: "2 days" } }, /retryBudget.per must be 100 to/]
    ]
    for (const [options, reason] of refused) {
      assert.match(refusalOf(() => Task.make("t", { payload, ...options })), reason)
    }
    assert.throws(() => RetryPolicy.fixed({ maxAttempts: 0, delay: 1 }), /maxAttempts/)
  })

  it("refuse a run whose time comes after its deadline", () => {
    const task = Task.make("t", { payload, deadline: "1 hour" })
    const late = Effect.runSync(Effect.flip(task.request({ n: 1 }, { delay: "1 hour" })))
    const at = Effect.runSync(Effect.flip(task.request({ n: 1 }, { at: new Date(Date.now() + 3_700_000) })))

    assert.match(late.message, /delay must be earlier than the deadline of the task, 3600000 ms/)
    assert.match(at.message, /at must be earlier than the deadline/)
  })
})

describe("what a handler says with its failure", () => {
  const outcomeOf = (failing: Effect.Effect<void, Retry.Failing<RateLimited | BadInput>>) =>
    Effect.gen(function*() {
      const handlers = yield* Handlers.Handlers
      return yield* handlers.find("t")!.handler(`{"n":1}`, {} as Handlers.Attempt["Type"])
    }).pipe(
      Effect.provide(Layer.provideMerge(Task.make("t", base).toLayer(() => failing), Handlers.layer)),
      Effect.provideService(Handlers.Attempt, {} as Handlers.Attempt["Type"])
    )
  const is = (actual: Outcome, expected: object) => assert.deepInclude(actual, expected as Outcome)

  it.effect("becomes part of the outcome", () =>
    Effect.gen(function*() {
      const plain = yield* outcomeOf(new RateLimited())
      const after = yield* outcomeOf(Retry.after("30 seconds", new RateLimited()))
      const never = yield* outcomeOf(Retry.never(new BadInput({ field: "n" })))
      const snooze = yield* outcomeOf(Retry.snooze("5 minutes"))

      assert.notProperty(plain, "retryAfterMs")
      is(after, { ...plain, retryAfterMs: 30_000 })
      is(never, { retryable: false })
      assert.strictEqual(never._tag === "failure" ? never.failure.tag : "", "BadInput")
      assert.deepStrictEqual(snooze, { _tag: "snooze", delayMs: 300_000 })
    }))

  it.effect("is a defect that names the bound when it is out of bounds", () =>
    Effect.gen(function*() {
      const short = yield* outcomeOf(Retry.snooze("10 millis"))
      const long = yield* Effect.exit(Retry.after("31 days", "error"))

      assert.strictEqual(short._tag === "failure" ? short.failure.kind : "", "defect")
      assert.match(short._tag === "failure" ? short.failure.message : "", /Retry.snooze must be 100 to 2592000000 ms/)
      assert.isTrue(Exit.isFailure(long))
    }))
})

describe("RetryBudgets", () => {
  it("keeps no more keys than its bound, and lets further ones share a bucket", () => {
    const budgets = new RetryBudgets(undefined, 10)
    const budget = { retries: 1, perMs: 1_000, by: "fairnessKey" } as const
    const entry = (tenant: string) => ({ task: "t", told: { tenant } }) as unknown as Entry
    for (let n = 0; n < 10; n++) budgets.take(entry(`k${n}`), budget, 0)

    budgets.take(entry("one more"), budget, 0)
    assert.strictEqual(budgets.opensAt(entry("and another"), budget, 0), 1_000)
    assert.strictEqual(budgets.opensAt(entry("k3"), budget, 0), 1_000)
    // By then all are full, and there is room again.
    assert.strictEqual(budgets.opensAt(entry("and another"), budget, 2_000), 2_000)
  })
})

describe("fingerprint", () => {
  const of = (message: string, tag = "TypeError", task = "t") => fingerprint(task, { kind: "defect", tag, message })

  it("is the same but for numbers, ids and what stands in quotes", () => {
    assert.strictEqual(of(`user 17 of "acme" has no field 'x'`), of(`user 4 of "other" has no field 'y'`))
    assert.strictEqual(
      of("order 0190f7e1-aaaa-7000-8000-0123456789ab"),
      of("order 0190f7e2-bbbb-7000-8000-ba9876543210")
    )
    assert.notStrictEqual(of("no field"), of("no value"))
    assert.notStrictEqual(of("m", "TypeError"), of("m", "RangeError"))
    assert.notStrictEqual(of("m", "E", "a"), of("m", "E", "b"))
    const typed = (message: string) => fingerprint("t", { kind: "failure", tag: "Bounced", message })
    assert.strictEqual(typed("whatever it says"), typed("something else"))
  })
})
