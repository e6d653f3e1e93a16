/** What each kind of bad input gets: a typed error that names field, limit and value; and nothing is stored. */
import { assert, describe, it } from "@effect/vitest"
import { payloadBytesMaxDefault, requestProblem } from "@orrery/core/RunRequest"
import { Orrery, Runs, Task } from "@orrery/orrery"
import { Duration, Effect, Schema } from "effect"

const note = Task.make("note", {
  payload: Schema.Struct({ text: Schema.String.pipe(Schema.maxLength(1_000_000)) }),
  queue: "notes"
})
const anything = Task.make("anything", { payload: Schema.Unknown, queue: "notes" })

const handled: Array<string> = []
const orrery = Orrery.layerMemory({ handlers: note.toLayer(({ text }) => Effect.sync(() => void handled.push(text))) })

const nothingStored = Effect.gen(function*() {
  const runs = yield* Runs
  assert.deepStrictEqual(yield* runs.list({ limit: 10 }), [])
})

describe("bad input", () => {
  it.scopedLive("is refused at enqueue with the field, the limit and the value", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(note.enqueue({ text: 5 as never }))
      assert.strictEqual(invalid._tag, "PayloadInvalid")
      assert.match(invalid.message, /note.*text.*string.*5/s)

      const circle: { self?: unknown } = {}
      circle.self = circle
      assert.match((yield* Effect.flip(anything.enqueue(circle))).message, /anything.*no JSON form/)
      assert.match((yield* Effect.flip(anything.enqueue(10n))).message, /no JSON form/)

      const large = yield* Effect.flip(note.enqueue({ text: "x".repeat(payloadBytesMaxDefault) }))
      assert.strictEqual(large._tag, "PayloadTooLarge")
      assert.strictEqual(large.message, `payload of note is ${payloadBytesMaxDefault + 11} bytes, the limit is 262144`)

      const bad = (options: Parameters<typeof note.enqueue>[1]) =>
        Effect.map(Effect.flip(note.enqueue({ text: "x" }, options)), (error) => `${error._tag}: ${error.message}`)
      assert.strictEqual(
        yield* bad({ priority: 10 }),
        "InvalidRequest: priority must be an integer from 0 to 9, got 10"
      )
      assert.strictEqual(
        yield* bad({ priority: 1.5 }),
        "InvalidRequest: priority must be an integer from 0 to 9, got 1.5"
      )
      assert.match(yield* bad({ delay: "4000 days" }), /delay must be 0 to 316224000000 ms, got 345600000000/)
      assert.match(yield* bad({ delay: Duration.infinity }), /delay must be .*got Infinity/)
      assert.match(yield* bad({ delay: "soon" as never }), /delay must be a duration, got soon/)
      assert.match(yield* bad({ at: new Date(Number.NaN) }), /at must be an instant after 1970, got NaN/)
      assert.match(yield* bad({ at: new Date(-1) }), /at must be an instant after 1970, got -1/)
      assert.match(yield* bad({ at: new Date(), delay: 1 }), /at must be absent when delay is given/)
      yield* nothingStored
    }).pipe(Effect.provide(orrery)))

  it.effect("is refused by every boundary again, whoever the caller is", () =>
    Effect.gen(function*() {
      const good = yield* note.request({ text: "x" })
      const problem = (change: Partial<typeof good>) => requestProblem({ ...good, ...change }, 1_000)?.message
      const nameLimit = "1 to 200 characters of A-Z a-z 0-9 _ . : / -"

      assert.isUndefined(problem({}))
      assert.isUndefined(problem({ queue: "a".repeat(200), task: "A-Z_a.z:0/9" }))
      assert.strictEqual(problem({ queue: "" }), `queue must be ${nameLimit}, got ""`)
      assert.strictEqual(problem({ task: "a b" }), `task must be ${nameLimit}, got "a b"`)
      assert.strictEqual(problem({ namespace: "n".repeat(201) }), `namespace must be ${nameLimit}, got 201 characters`)
      assert.strictEqual(problem({ queue: "a|b" }), `queue must be ${nameLimit}, got "a|b"`)
      assert.match(problem({ id: "1" as never })!, /id must be a UUID version 7/)
      assert.match(problem({ when: { _tag: "delay", ms: -1 } })!, /delay must be .*, got -1/)
      assert.match(problem({ payload: "\"é\"".repeat(300) })!, /is 1200 bytes, the limit is 1000/)
      assert.match(problem({ payload: "\u0000" })!, /payload must be JSON text, got a NUL/)
      assert.match(problem({ policy: "{}" })!, /policy must be a run policy/)
      assert.match(problem({ policy: "x".repeat(20_000) })!, /policy must be at most 16384 characters/)
    }))

  it("is refused when the task is defined", () => {
    const define = (name: string, options: object) => () => Task.make(name, { payload: Schema.Void, ...options })
    assert.throws(define("no spaces", {}), /task must be 1 to 200 characters .* got no spaces/)
    assert.throws(define("ok", { queue: "" }), /queue must be/)
    assert.throws(define("ok", { timeout: "31 days" }), /timeout must be 0 to 2592000000 ms/)
  })

  it.scopedLive("that is in an old row ends as failed with the parse issue, and is not tried again", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const old = yield* note.request({ text: "x" })
      yield* runs.enqueueMany([{ ...old, payload: "{\"text\":7}" }])
      const run = yield* runs.awaitFinal(old.id)

      assert.deepStrictEqual([run.state, run.attempt, run.failure?.kind], ["failed", 1, "undecodable"])
      assert.match(run.failure!.message, /string/)
      const error = yield* Effect.flip(note.result(old.id))
      assert.strictEqual(error._tag, "RunFailed")
      assert.deepStrictEqual(handled, [])
    }).pipe(Effect.provide(orrery)))

  it.scopedLive("of a task nobody knows is kept and says so", () =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const id = yield* anything.enqueue(1)
      const run = yield* runs.get(id)
      assert.deepStrictEqual([run.state, run.waitsFor], ["ready", "no worker with this capability"])
    }).pipe(Effect.provide(orrery)))
})
