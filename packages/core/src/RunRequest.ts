/** What a client asks for, already encoded, and the checks every boundary makes on it. */
import { Either, Schema } from "effect"
import { InvalidRequest, PayloadTooLarge } from "./Errors.js"
import { identityProblem, IdentityRule, ruleDefault } from "./Identity.js"
import { limitersPerTaskMax, LimiterTerms } from "./LimiterTerms.js"
import { nameLengthMax, namePattern } from "./Name.js"
import { slotsPerRunMax } from "./Need.js"
import { RetryPolicy, standard } from "./RetryPolicy.js"
import { ByTag, RetryBudget } from "./RetryRules.js"
import { priorityMax } from "./Run.js"
import type { RunId } from "./RunId.js"
import { parseKeys } from "./RunKeys.js"
import { versionedPattern } from "./TaskName.js"
import { isTraceParent } from "./TraceParent.js"

/** Longest delay of a run: 10 years, in ms. */
export const delayMsMax = 10 * 366 * 24 * 3600 * 1000
/** Longest `timeout` of an attempt: 30 days, in ms. */
export const timeoutMsMax = 30 * 24 * 3600 * 1000
/** Default bound of an encoded payload and of a result: 256 KiB. */
export const payloadBytesMaxDefault = 256 * 1024

/**
 * What stays of a run that has succeeded. `keep`: run and result stay readable for as long as is said of its queue (`Retention`).
 * `none`: nothing, at once; its result cannot be awaited, and an enqueue that a broken connection makes the client repeat
 * after the run has ended runs once more. A run that failed or was cancelled is kept in any case.
 */
export const Retention = Schema.Literal("keep", "none")
export type Retention = typeof Retention.Type

/** Largest `maxDepth`: it takes a count of twice as many rows to begin with. */
export const depthMax = 100_000

/** How many runs of a queue may be unfinished. */
export const Backlog = Schema.Struct({
  /** Runs of the queue's partition that are not final, of whatever task. */
  maxDepth: Schema.Int.pipe(Schema.between(1, depthMax)),
  /** The same of each tenant (fairness key). */
  maxDepthPerTenant: Schema.optionalWith(Schema.Int.pipe(Schema.between(1, depthMax)), { exact: true })
})
export type Backlog = typeof Backlog.Type

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })
const TimeMs = Schema.Int.pipe(Schema.between(1, delayMsMax))

/** Stored with the run as JSON text: what the owner needs to decide on it without the task's code. */
export const RunPolicy = Schema.Struct({
  retry: RetryPolicy,
  /** Start-to-close, ms. 0: none. */
  timeoutMs: Schema.Int.pipe(Schema.between(0, timeoutMsMax)),
  /** Default "keep". */
  retention: optional(Retention),
  byTag: optional(ByTag),
  retryBudget: optional(RetryBudget),
  /** From `scheduledAt` to the first assignment. */
  queueTtlMs: optional(TimeMs),
  /** From `createdAt` to the end of the run. */
  deadlineMs: optional(TimeMs),
  /** What a request's `identity` means. Default: an idempotency key, for a day. */
  identity: optional(IdentityRule),
  backlog: optional(Backlog),
  /** Limits that span queues: it starts when its owner has room of each. */
  limiters: optional(Schema.Array(LimiterTerms).pipe(Schema.minItems(1), Schema.maxItems(limitersPerTaskMax))),
  /** Of its worker, that an attempt takes. Default 1. */
  slots: optional(Schema.Int.pipe(Schema.between(1, slotsPerRunMax)))
})
export type RunPolicy = typeof RunPolicy.Type

export const defaultPolicy: RunPolicy = { retry: standard, timeoutMs: 0 }

export interface RunRequest {
  readonly id: RunId
  readonly namespace: string
  readonly queue: string
  /** With the version of its payload: `TaskName`. */
  readonly task: string
  /** JSON text. */
  readonly payload: string
  /** 0 (most urgent) to 9. */
  readonly priority: number
  /** `delay`: ms from now by the owner's estimate of the database clock. `at`: an instant, ms since 1970. */
  readonly when: { readonly _tag: "delay" | "at"; readonly ms: number }
  /** JSON text of a `RunPolicy`. The same text for all runs of a task: it is parsed once. */
  readonly policy: string
  /** JSON text of `RunKeys`; `null`: none. */
  readonly keys: string | null
  /** Another run of its task with the same one may stand for it, as its policy says (`IdentityRule`). Absent: none does. */
  readonly identity?: string
  /** Of the span in which it was enqueued (`TraceParent`). */
  readonly trace?: string | undefined
  /** Read from the inbox by its owner, in whose process alone this is said. */
  readonly fromInbox?: true
  /** The client may have sent it before: the owner looks in the history too before it accepts it as new. */
  readonly resend: boolean
  /** The run that this one is the redrive of. */
  readonly origin?: RunId
}

const runIdPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const decodePolicy = Schema.decodeUnknownEither(Schema.parseJson(RunPolicy))
const policies = new Map<string, RunPolicy | InvalidRequest>()
const policiesMax = 1_000
const policyLengthMax = 16_384

/** Parses a policy text; remembers the answers, since all runs of a task share one text. */
export const parsePolicy = (text: string): RunPolicy | InvalidRequest => {
  const known = policies.get(text)
  if (known !== undefined) return known
  if (text.length > policyLengthMax) {
    return new InvalidRequest({
      field: "policy",
      limit: `at most ${policyLengthMax} characters`,
      actual: `${text.length}`
    })
  }
  const parsed = decodePolicy(text)
  const answer = Either.isRight(parsed)
    ? parsed.right
    : new InvalidRequest({ field: "policy", limit: "a run policy", actual: parsed.left.message })
  // A caller that varies its policies must not fill the memory: forget all and start again.
  if (policies.size >= policiesMax) policies.clear()
  policies.set(text, answer)
  return answer
}

const invalid = (field: string, limit: string, actual: unknown) =>
  new InvalidRequest({ field, limit, actual: String(actual).slice(0, 300) })

/** Names come again and again: these were good last time. */
const lastGood: Record<string, string> = {}

const nameProblem = (field: string, value: string, pattern = namePattern): InvalidRequest | undefined => {
  if (lastGood[field] === value) return undefined
  if (value.length <= nameLengthMax && pattern.test(value)) {
    lastGood[field] = value
    return undefined
  }
  return invalid(
    field,
    "1 to 200 characters of A-Z a-z 0-9 _ . : / -",
    value.length > 200 ? `${value.length} characters` : JSON.stringify(value)
  )
}

export const priorityProblem = (priority: number): InvalidRequest | undefined =>
  Number.isInteger(priority) && priority >= 0 && priority <= priorityMax
    ? undefined
    : invalid("priority", `an integer from 0 to ${priorityMax}`, priority)

export const whenProblem = ({ _tag, ms }: RunRequest["when"]): InvalidRequest | undefined => {
  if (_tag === "delay" && !(ms >= 0 && ms <= delayMsMax)) return invalid("delay", `0 to ${delayMsMax} ms`, ms)
  if (_tag === "at" && !(ms >= 0 && ms <= 8.64e15)) return invalid("at", "an instant after 1970", ms)
  return undefined
}

export const payloadProblem = (
  task: string,
  payload: string,
  payloadBytesMax: number
): InvalidRequest | PayloadTooLarge | undefined => {
  // Two bytes a character is the common upper case; count exactly only when it might matter.
  if (payload.length * 3 > payloadBytesMax) {
    const sizeBytes = Buffer.byteLength(payload)
    if (sizeBytes > payloadBytesMax) return new PayloadTooLarge({ task, sizeBytes, limitBytes: payloadBytesMax })
  }
  // PostgreSQL text cannot hold a NUL. JSON escapes it, so a raw one is not JSON.
  return payload.includes("\u0000") ? invalid("payload", "JSON text", "a NUL character") : undefined
}

/** The first thing wrong with a request, or `undefined`. Plain code: it runs once per enqueued run. */
export const requestProblem = (
  request: RunRequest,
  payloadBytesMax: number
): InvalidRequest | PayloadTooLarge | undefined => {
  if (!runIdPattern.test(request.id)) return invalid("id", "a UUID version 7", request.id)
  const name = nameProblem("namespace", request.namespace)
    ?? nameProblem("queue", request.queue)
    ?? nameProblem("task", request.task, versionedPattern)
  if (name !== undefined) return name
  const problem = priorityProblem(request.priority)
    ?? whenProblem(request.when)
    ?? payloadProblem(request.task, request.payload, payloadBytesMax)
  if (problem !== undefined) return problem
  if (request.trace !== undefined && !isTraceParent(request.trace)) {
    return invalid("trace", "a traceparent of version 00", request.trace)
  }
  const policy = parsePolicy(request.policy)
  if (policy instanceof InvalidRequest) return policy
  const { _tag, ms } = request.when
  if (policy.deadlineMs !== undefined && _tag === "delay" && ms >= policy.deadlineMs) {
    return invalid("delay", `shorter than the deadline of the task, ${policy.deadlineMs} ms`, ms)
  }
  const keys = request.keys === null ? undefined : parseKeys(request.keys)
  if (keys instanceof InvalidRequest) return keys
  return request.identity === undefined ? undefined : identityProblem(request.identity)
}

/** By which rule another run may stand for a request with an identity. */
export const ruleOf = (request: Pick<RunRequest, "policy">): IdentityRule => {
  const policy = parsePolicy(request.policy)
  return "retry" in policy ? policy.identity ?? ruleDefault : ruleDefault
}

export const backlogOf = (request: Pick<RunRequest, "policy">): Backlog | undefined => {
  const policy = parsePolicy(request.policy)
  return "retry" in policy ? policy.backlog : undefined
}
