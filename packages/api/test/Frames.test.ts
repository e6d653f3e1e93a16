import { assert, describe, it } from "@effect/vitest"
import { type Outcome, RunFailure } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import type { AttemptRef, OutcomeReport, ToWorker } from "@orrery/core/WorkerProtocol"
import { Either, FastCheck as fc, Schema } from "effect"
import * as Frames from "../src/Frames.js"

const id = fc.uuid().map((text) => text as RunId)
const name = fc.string({ maxLength: 200 })
const text = fc.string({ maxLength: 300 })
const count = fc.maxSafeNat()
const slots = fc.option(fc.integer({ min: 2, max: 1_000 }), { nil: undefined })
const trace = fc.option(fc.string({ maxLength: 55 }), { nil: undefined })

const request: fc.Arbitrary<RunRequest> = fc.record({
  id,
  namespace: name,
  queue: name,
  task: name,
  payload: text,
  priority: fc.integer({ min: 0, max: 9 }),
  when: fc.record({
    _tag: fc.constantFrom("delay" as const, "at" as const),
    ms: fc.double({ noNaN: true, noDefaultInfinity: true })
  }),
  policy: text,
  keys: fc.option(text),
  resend: fc.boolean(),
  trace
}).map((each) => each.resend ? { ...each, trace: undefined } : each).chain((plain) =>
  fc.option(fc.string({ maxLength: 200 }), { nil: undefined })
    .map((identity) => identity === undefined ? plain : { ...plain, identity })
)
const ref: fc.Arbitrary<AttemptRef> = fc.record({
  partitionId: count,
  runId: id,
  attempt: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  lease: count
})
const outcome: fc.Arbitrary<Outcome> = fc.oneof(
  fc.record({ _tag: fc.constant("success" as const), result: text }),
  fc.record({
    _tag: fc.constant("failure" as const),
    failure: fc.record(
      {
        kind: fc.constantFrom(...RunFailure.fields.kind.literals),
        tag: text,
        message: text,
        error: text
      },
      { requiredKeys: ["kind", "tag", "message"] }
    ),
    retryable: fc.boolean()
  }),
  fc.record({
    _tag: fc.constant("failure" as const),
    failure: fc.record({ kind: fc.constant("failure" as const), tag: text, message: text }),
    retryable: fc.boolean(),
    retryAfterMs: fc.integer({ min: 0, max: 1e9 })
  }),
  fc.record({ _tag: fc.constant("snooze" as const), delayMs: fc.integer({ min: 0, max: 1e9 }) }),
  fc.record({ _tag: fc.constantFrom("cancelled" as const, "interrupted" as const) })
)
const report: fc.Arbitrary<OutcomeReport> = fc.tuple(ref, outcome).map(([a, b]) => ({ ...a, outcome: b }))
const assignment = fc.tuple(
  ref,
  fc.record({ task: name, payload: text, timeoutMs: fc.integer({ min: 0, max: 1e9 }), trace, slots })
)
  .map(([a, b]) => ({ ...a, ...b }))
const toWorker: fc.Arbitrary<Frames.Ended | Frames.NodesChanged | ToWorker> = fc.oneof(
  fc.record({ _tag: fc.constant("ended" as const) }),
  fc.record({ _tag: fc.constant("assign" as const), assignments: fc.array(assignment) }),
  fc.record({ _tag: fc.constant("cancel" as const), attempts: fc.array(ref) }),
  fc.record({ _tag: fc.constant("owned" as const), partitionId: count, expects: count, epoch: count }),
  fc.record({ _tag: fc.constant("hungry" as const), hungry: fc.boolean() }),
  fc.record({ _tag: fc.constant("hungry" as const), hungry: fc.boolean(), need: fc.integer({ min: 2, max: 1_000 }) }),
  fc.record({ _tag: fc.constant("nodes" as const) })
)

/** Values like those a broken or hostile peer could send: garbage, and frames with garbage somewhere inside. */
const garbage = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withNullPrototype: true, withSparseArray: true }),
  fc.tuple(fc.constant(1), fc.anything(), fc.anything()),
  fc.tuple(fc.constant(1), fc.array(fc.array(fc.anything())), fc.array(fc.array(fc.anything()))),
  fc.tuple(
    fc.constant(1),
    fc.constantFrom("ended", "assign", "cancel", "owned", "hungry", "nodes"),
    fc.array(fc.array(fc.anything()))
  )
)
const guards = [
  Frames.isRequestFrame,
  Frames.isToWorkerFrame,
  Frames.isAttemptFrame,
  Frames.isOutcomeFrame,
  Frames.isOutcomeAnswers
]

/** As a value arrives: what the guard sees has no identity in common with what was sent. */
const overTheWire = <A>(value: A): A => structuredClone(value)

describe("Frames", { timeout: 30_000 }, () => {
  it("gives back requests exactly", () => {
    fc.assert(fc.property(fc.array(request), (requests) => {
      const frame = overTheWire(Frames.encodeRequests(requests))

      assert.isTrue(Frames.isRequestFrame(frame))
      assert.deepStrictEqual(Either.getOrThrow(Frames.decodeRequests(frame)), requests)
    }))
  })

  it("gives back messages to workers exactly", () => {
    fc.assert(fc.property(toWorker, (message) => {
      const frame = overTheWire(Frames.encodeToWorker(message))

      assert.isTrue(Frames.isToWorkerFrame(frame))
      assert.deepStrictEqual(Either.getOrThrow(Frames.decodeToWorker(frame)), message)
    }))
  })

  it("gives back attempts and outcomes exactly", () => {
    fc.assert(fc.property(fc.array(ref), fc.array(report), (refs, reports) => {
      const attempts = overTheWire(Frames.encodeAttempts(refs))
      const outcomes = overTheWire(Frames.encodeOutcomes(reports))

      assert.isTrue(Frames.isAttemptFrame(attempts) && Frames.isOutcomeFrame(outcomes))
      assert.deepStrictEqual(Either.getOrThrow(Frames.decodeAttempts(attempts)), refs)
      assert.deepStrictEqual(Either.getOrThrow(Frames.decodeOutcomes(outcomes)), reports)
    }))
  })

  it("says to a node of an earlier release what that one can read", () => {
    fc.assert(fc.property(fc.array(report), (reports) => {
      const told = reports.map(Frames.withoutDelay)
      const rows = overTheWire(Frames.encodeOutcomes(told))[1] as ReadonlyArray<ReadonlyArray<unknown>>

      assert.isTrue(rows.every((row) => row[4] !== 4 && row.length <= 10), "rows of the first release")
      for (const [at, each] of reports.entries()) if (!Frames.hasDelay(each)) assert.strictEqual(told[at], each)
    }))
  })

  it("never throws on garbage, and decodes whatever it lets through", () => {
    fc.assert(
      fc.property(garbage, (value) => {
        for (const guard of guards) guard(value)
        if (Frames.isRequestFrame(value)) Frames.decodeRequests(value)
        if (Frames.isToWorkerFrame(value)) Frames.decodeToWorker(value)
        if (Frames.isAttemptFrame(value)) Frames.decodeAttempts(value)
        if (Frames.isOutcomeFrame(value)) Frames.decodeOutcomes(value)
      }),
      { numRuns: 1_500 }
    )
  })

  it("refuses a good frame with any one value replaced by one of another kind", () => {
    const wrong = fc.constantFrom(undefined, null, {}, -1, 1.5, Number.NaN, Infinity, 2 ** 60, "x".repeat(40), [], true)
    const frames = fc.oneof(
      fc.array(request.map(({ identity: _, ...each }) => ({ ...each, keys: null, trace: undefined })), { minLength: 1 })
        .map((all) => ({ frame: Frames.encodeRequests(all), at: 2, is: Frames.isRequestFrame })),
      fc.array(ref, { minLength: 1 })
        .map((all) => ({ frame: Frames.encodeAttempts(all), at: 1, is: Frames.isAttemptFrame }))
    )
    fc.assert(fc.property(frames, fc.nat(), wrong, ({ at, frame, is }, place, value) => {
      const copy: ReadonlyArray<unknown> = overTheWire(frame)
      const row = (copy[at] as ReadonlyArray<Array<unknown>>)[0]!
      const column = place % row.length
      const before = row[column]
      row[column] = value

      // The payload may be any text, `ms` any number, and a value of the same type may be legal.
      if (typeof before !== typeof value) assert.isFalse(is(copy))
    }))
  })

  it("bounds rows and texts", () => {
    const row = ["0".repeat(36), 0, "{}", 5, 0, 0, 0]
    const kinds = [["n", "q", "t", "{}"]]
    const rows = (length: number) => [1, kinds, Array.from({ length }, () => row)]

    assert.isTrue(Frames.isRequestFrame(rows(Frames.rowsMax)))
    assert.isFalse(Frames.isRequestFrame(rows(Frames.rowsMax + 1)))
    const long = "x".repeat(Frames.textLengthMax + 1)
    assert.isFalse(Frames.isRequestFrame([1, kinds, [[row[0], 0, long, 5, 0, 0, 0]]]))
    assert.isFalse(Frames.isRequestFrame([1, kinds, [[row[0], 1, "{}", 5, 0, 0, 0]]]))
    assert.isFalse(Frames.isRequestFrame([1, [["n".repeat(201), "q", "t", "{}"]], []]))
  })

  it("answers a frame of another version with a typed error", () => {
    const frame = Schema.decodeUnknownSync(Frames.RequestFrame)([7, { anything: true }])

    const answer = Frames.decodeRequests(frame)

    assert.isTrue(Either.isLeft(answer) && answer.left.version === 7 && answer.left._tag === "UnknownFrameVersion")
  })
})
