/**
 * With whom a run shares its turn: keys of order, fairness, concurrency and rate. They travel and are stored as one JSON
 * text, the same for runs with the same keys, and decide in which *line* of its partition a run waits. All runs of a line
 * share their keys, so that either the first of them may start or none: nothing hides behind a run that may not.
 */
import { Either, Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import { tokensMax } from "./LimiterTerms.js"
import { Name } from "./Name.js"

/** Longest key, in characters. */
export const keyLengthMax = 200
/** Most concurrency keys, and most rate keys, of one run. */
export const limitsPerRunMax = 4
/** Longest keys of one run as JSON text, in characters: they are part of an index. */
export const keysLengthMax = 1_600
/** Largest concurrency limit. */
export const concurrencyMax = 100_000
/** Largest number of starts in one period of a rate limit: the sliding window remembers each. */
export const rateLimitMax = 10_000
/** Longest period of a rate limit: 1 day, in ms. */
export const ratePeriodMsMax = 24 * 3600 * 1000
/** Largest weight of a fairness key. */
export const weightMax = 1_000

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/** Any text without a NUL, which PostgreSQL cannot store. */
const Key = Schema.String.pipe(Schema.minLength(1), Schema.maxLength(keyLengthMax), Schema.pattern(/^[^\u0000]*$/))

/** What happens to a run whose concurrency key has no permit left: it waits, is cancelled, or the oldest running is. */
export const OnFull = Schema.Literal("wait", "cancelNewest", "cancelRunning")
export type OnFull = typeof OnFull.Type

/** At most `limit` runs whose `name` and `key` are the same run at once. */
export const ConcurrencyKey = Schema.Struct({
  name: Name,
  key: Key,
  limit: Schema.Int.pipe(Schema.between(1, concurrencyMax)),
  /** Default "wait". */
  onFull: optional(OnFull)
})
export type ConcurrencyKey = typeof ConcurrencyKey.Type

/**
 * How starts are counted. `bucket`: `limit` tokens that refill evenly over `perMs`, so up to twice the limit may start within
 * one period after a quiet one. `window`: never more than `limit` within any `perMs`.
 */
export const RateAlgorithm = Schema.Literal("bucket", "window")
export type RateAlgorithm = typeof RateAlgorithm.Type

/**
 * In the keys of a run that fills a range of a schedule. Owners of earlier releases take it for what it says: one at a time. To the
 * others it is no limit of its own, but tells that the run counts among those that have half of the slots (`Need`).
 */
export const backfillLimit: ConcurrencyKey = { name: "orrery.backfill", key: "*", limit: 1 }

/** Runs whose `name` and `key` are the same start at a bounded rate. */
export const RateKey = Schema.Struct({
  name: Name,
  key: Key,
  limit: Schema.Int.pipe(Schema.between(1, rateLimitMax)),
  perMs: Schema.Int.pipe(Schema.between(1, ratePeriodMsMax)),
  /** How much of the limit one start takes. Default 1, at most `limit`. */
  cost: optional(Schema.Int.pipe(Schema.between(1, rateLimitMax))),
  /** Default "window". */
  algorithm: optional(RateAlgorithm)
})
export type RateKey = typeof RateKey.Type

export const RunKeys = Schema.Struct({
  /** Runs with the same one are executed strictly one after the other, in the order in which they were enqueued. */
  order: optional(Key),
  /** Runs of different tenants take turns, whatever their number. */
  tenant: optional(Key),
  /** Turns of the tenant for one of a tenant with weight 1. Default 1. */
  weight: optional(Schema.Int.pipe(Schema.between(1, weightMax))),
  limits: optional(Schema.Array(ConcurrencyKey).pipe(Schema.minItems(1), Schema.maxItems(limitsPerRunMax))),
  rates: optional(Schema.Array(RateKey).pipe(Schema.minItems(1), Schema.maxItems(limitsPerRunMax))),
  /** Tokens of a start, by the names of those rate limiters of the policy for which they differ from run to run. */
  costs: optional(Schema.Record({ key: Name, value: Schema.Int.pipe(Schema.between(1, tokensMax)) }))
})
export type RunKeys = typeof RunKeys.Type

export const isBackfill = ({ limits }: RunKeys): boolean =>
  limits !== undefined && limits.some(({ name }) => name === backfillLimit.name)

const decodeKeys = Schema.decodeUnknownEither(Schema.parseJson(RunKeys), { onExcessProperty: "error" })

/** Texts parsed lately. Bounded: it starts afresh when full. */
const parsed = new Map<string, RunKeys | InvalidRequest>()
const parsedMax = 20_000

export const parseKeys = (text: string): RunKeys | InvalidRequest => {
  const known = parsed.get(text)
  if (known !== undefined) return known
  if (text.length > keysLengthMax) {
    return new InvalidRequest({ field: "keys", limit: `at most ${keysLengthMax} characters`, actual: `${text.length}` })
  }
  const answer = check(text)
  if (parsed.size >= parsedMax) parsed.clear()
  parsed.set(text, answer)
  return answer
}

const check = (text: string): RunKeys | InvalidRequest => {
  const decoded = decodeKeys(text)
  if (Either.isLeft(decoded)) {
    return new InvalidRequest({ field: "keys", limit: "keys of a run", actual: decoded.left.message.slice(0, 300) })
  }
  const keys = decoded.right
  const dear = keys.rates?.find(({ cost = 1, limit }) => cost > limit)
  return dear === undefined ? keys : new InvalidRequest({
    field: "keys.rates.cost",
    limit: `at most the limit of ${dear.name}, ${dear.limit}: it could never start`,
    actual: String(dear.cost)
  })
}

/** In which line a run waits once its time has come. `|` and `>` are in no task's name. */
export const lineOf = (task: string, keys: string | null): string => {
  if (keys === null) return task
  const order = orderOf(keys)
  return order === undefined ? `${task}|${keys}` : `>${order}`
}

/** A line of runs with an ordering key: it holds those that wait for their time as well. */
export const isOrdered = (line: string): boolean => line.startsWith(">")

const orderOf = (keys: string): string | undefined => {
  const known = parseKeys(keys)
  return known instanceof InvalidRequest ? undefined : known.order
}
