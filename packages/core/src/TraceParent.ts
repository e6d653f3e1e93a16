/** The span in which a run was enqueued, as the text of a W3C `traceparent` header: it travels and is stored with the run. */
import { Effect, Option, Tracer } from "effect"

const pattern = /^00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])$/

/** Whether a text is one that `current` makes. */
export const isTraceParent = (text: string): boolean => pattern.test(text)

/** Of the span around; `undefined` where there is none, or one whose ids are not W3C's. */
export const current: Effect.Effect<string | undefined> = Effect.map(
  Effect.serviceOption(Tracer.ParentSpan),
  (span) => {
    if (Option.isNone(span)) return undefined
    const { sampled, spanId, traceId } = span.value
    const text = `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
    return isTraceParent(text) ? text : undefined
  }
)

/** As a parent of spans here; `undefined` for any other text. */
export const externalSpan = (text: string): Tracer.ExternalSpan | undefined => {
  const [, traceId, spanId, flags] = pattern.exec(text) ?? []
  return traceId === undefined || spanId === undefined
    ? undefined
    : Tracer.externalSpan({ traceId, spanId, sampled: flags === "01" })
}
