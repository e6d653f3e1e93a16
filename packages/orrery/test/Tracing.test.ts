/** Spans go on in the attempts of runs that were enqueued in them, through whatever way the runs take. */
import { assert, describe, it } from "@effect/vitest"
import * as TraceParent from "@orrery/core/TraceParent"
import { Orrery, RetryPolicy, Task } from "@orrery/orrery"
import { Effect, Layer, Option, Schema, Tracer } from "effect"

const step = Task.make("step", {
  payload: Schema.Struct({ failures: Schema.Number, then: Schema.optional(Schema.Number) }),
  success: Schema.String,
  retry: RetryPolicy.fixed({ maxAttempts: 2, delay: 1, jitter: 0 })
})
let attempts = 0
const handlers = step.toLayer(({ failures }) =>
  Effect.suspend(() => {
    attempts += 1
    if (attempts <= failures) return Effect.dieMessage("again")
    return Effect.map(
      Effect.option(Effect.currentSpan),
      Option.match({
        onNone: () => "no span",
        onSome: ({ traceId }) => traceId
      })
    )
  })
)

/** Remembers the spans of the native tracer. */
const recording = (spans: Array<Tracer.Span>) =>
  Layer.unwrapEffect(Effect.map(Effect.tracer, (native) =>
    Layer.setTracer(Tracer.make({
      span: (...args) => {
        const span = native.span(...args)
        spans.push(span)
        return span
      },
      context: native.context
    }))))

const parentOf = (span: Tracer.Span) => Option.getOrThrow(span.parent)

describe("a run", () => {
  it.scopedLive("enqueued in a span is executed in children of it, one per attempt", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      const [traceId, spanId] = yield* Effect.gen(function*() {
        attempts = 0
        const { spanId, traceId } = yield* Effect.orDie(Effect.currentSpan)
        const result = yield* step.execute({ failures: 1 })
        assert.strictEqual(result, traceId)
        return [traceId, spanId] as const
      }).pipe(
        Effect.withSpan("order"),
        Effect.provide(Layer.provideMerge(Orrery.layerMemory({ handlers }), recording(spans)))
      )

      const made = spans.filter(({ name }) => name === "step")
      assert.deepStrictEqual(made.map(({ kind }) => kind), ["consumer", "consumer"])
      for (const span of made) {
        assert.deepStrictEqual([parentOf(span).traceId, parentOf(span).spanId], [traceId, spanId])
        assert.strictEqual(span.status._tag, "Ended")
      }
      assert.deepStrictEqual(
        made.map(({ attributes }) => [attributes.get("orrery.attempt"), attributes.get("orrery.outcome")]),
        [[1, "defect"], [2, "success"]]
      )
    }))

  it.scopedLive("enqueued outside of one has none", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      attempts = 0
      const result = yield* Effect.provide(
        step.execute({ failures: 0 }),
        Layer.provideMerge(Orrery.layerMemory({ handlers }), recording(spans))
      )

      assert.strictEqual(result, "no span")
      assert.deepStrictEqual(spans.filter(({ name }) => name === "step"), [])
    }))

  it.effect("carries the parent as W3C text, and nothing that is not", () =>
    Effect.gen(function*() {
      const ids = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" }
      const text = (options: Parameters<typeof Tracer.externalSpan>[0]) =>
        Effect.withParentSpan(TraceParent.current, Tracer.externalSpan(options))

      const sampled = yield* text(ids)
      const dropped = yield* text({ ...ids, sampled: false })
      const foreign = yield* text({ ...ids, traceId: "noop" })

      assert.strictEqual(sampled, `00-${ids.traceId}-${ids.spanId}-01`)
      assert.strictEqual(dropped, `00-${ids.traceId}-${ids.spanId}-00`)
      assert.isUndefined(foreign)
      const back = TraceParent.externalSpan(dropped!)
      assert.deepStrictEqual([back?.traceId, back?.spanId, back?.sampled], [ids.traceId, ids.spanId, false])
      assert.isUndefined(TraceParent.externalSpan("00-x"))
    }))
})
