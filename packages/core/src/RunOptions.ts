/** What one request asks for beyond its task's policy. Travels and is stored as JSON text; most runs have none. */
import { Either, Schema } from "effect"
import { InvalidRequest } from "./Errors.js"

/** Longest `queueTtl` and `deadline`: 1 year, in ms. */
export const expiryMsMax = 366 * 24 * 3600 * 1000
/** Longest options of one run as JSON text, in characters. */
export const optionsLengthMax = 4_096

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })
const Expiry = Schema.Int.pipe(Schema.between(1, expiryMsMax))

export const RunOptions = Schema.Struct({
  /** Schedule-to-start: a run that has not begun this long after its time ends as expired, ms. */
  queueTtlMs: optional(Expiry),
  /** Over all attempts, from the enqueue: after it the run ends as expired, ms. */
  deadlineMs: optional(Expiry)
})
export type RunOptions = typeof RunOptions.Type

const decodeOptions = Schema.decodeUnknownEither(Schema.parseJson(RunOptions), { onExcessProperty: "error" })

export const parseOptions = (text: string): RunOptions | InvalidRequest => {
  if (text.length > optionsLengthMax) {
    return new InvalidRequest({
      field: "options",
      limit: `at most ${optionsLengthMax} characters`,
      actual: `${text.length}`
    })
  }
  const decoded = decodeOptions(text)
  return Either.isRight(decoded)
    ? decoded.right
    : new InvalidRequest({ field: "options", limit: "options of a run", actual: decoded.left.message.slice(0, 300) })
}
