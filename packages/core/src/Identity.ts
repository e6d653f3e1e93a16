/**
 * Which run stands for a request. A request with an identity key makes a run only when no run of its task and key stands for it
 * already, by the rule of its task; else the answer names the run that does.
 *
 * The owner of the partition decides, one request of a key after the other. What it decides by is a row per key, written in the
 * commit that makes the run and under its fence, so a new owner decides alike. The row says which run it was made over
 * (`replaces`): where the store holds another one, the run is not made. That is the last line, should an owner ever remember wrong.
 */
import { Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import type { StoredRun } from "./Journal.js"
import { keyLengthMax } from "./RunKeys.js"
import type { RunId } from "./RunId.js"

/** How long an idempotency key names its run when nothing else is said: 1 day, in ms. */
export const windowMsDefault = 24 * 3600 * 1000
/** Longest window: 1 year, in ms. */
export const windowMsMax = 366 * 24 * 3600 * 1000
/** Longest quiet time and longest wait of a debounce: 1 day, in ms. */
export const debounceMsMax = 24 * 3600 * 1000

/** The states of a run that is not final, as `unique` may name them. One whose time has come is `ready`. */
export const LiveState = Schema.Literal("scheduled", "ready", "retrying", "running")
export type LiveState = typeof LiveState.Type

const Ms = (max: number) => Schema.Int.pipe(Schema.between(1, max))

/** Part of a task's policy. */
export const IdentityRule = Schema.Union(
  /** The first run of a key stands for it for so long, final or not. */
  Schema.TaggedStruct("window", { windowMs: Ms(windowMsMax) }),
  /** The run of a key stands for it while it is in one of these states. */
  Schema.TaggedStruct("states", { states: Schema.Array(LiveState).pipe(Schema.minItems(1), Schema.maxItems(4)) }),
  /** The run of a key stands for it until it begins: it gets the newest payload, and waits anew, but not beyond the longest wait. */
  Schema.TaggedStruct("debounce", { quietMs: Ms(debounceMsMax), maxWaitMs: Ms(debounceMsMax) }),
  /** The waiting run of a key stands for it until it begins: it gets the newest payload. Its ordering key keeps it behind the one that runs. */
  Schema.TaggedStruct("keepLast", {})
)
export type IdentityRule = typeof IdentityRule.Type

/** Of a key that comes with an enqueue of a task without a rule. */
export const ruleDefault: IdentityRule = { _tag: "window", windowMs: windowMsDefault }

/** What a new run takes together with its insert. Times are ms by the database clock. */
export interface Claim {
  readonly key: string
  readonly expiresAt: number
  /** When the first request came that this run stands for. */
  readonly firstAt: number
  /** The run that stood for the key before. `null`: none did. */
  readonly replaces: RunId | null
}

export interface IdentityKey {
  readonly task: string
  readonly key: string
}

/** The row of a key. */
export interface StoredIdentity extends IdentityKey {
  readonly runId: RunId
  readonly expiresAt: number
  readonly firstAt: number
  /** The run, without its payload, unless it is final. */
  readonly run: Omit<StoredRun, "payload"> | undefined
}

/** The first thing wrong with a key, or `undefined`. */
export const identityProblem = (key: string): InvalidRequest | undefined =>
  key.length >= 1 && key.length <= keyLengthMax && !key.includes("\u0000") ? undefined : new InvalidRequest({
    field: "identity",
    limit: `a text of 1 to ${keyLengthMax} characters without NUL`,
    actual: JSON.stringify(key.slice(0, 250))
  })

/** What is known of the run that has a key. `final`: it has ended, or is gone. */
export type Life = "final" | { readonly state: LiveState; readonly attempt: number }

export type Verdict = "new" | "same" | "edit"

/** Whether a run of this life, which had the key last, stands for another request. */
export const verdictOf = (rule: IdentityRule, expiresAt: number, life: Life, now: number): Verdict => {
  switch (rule._tag) {
    case "window":
      return now < expiresAt ? "same" : "new"
    case "states":
      return life !== "final" && rule.states.includes(life.state) ? "same" : "new"
    case "debounce":
    case "keepLast":
      return life !== "final" && life.attempt === 0 && life.state !== "running" ? "edit" : "new"
  }
}

/** Whether `verdictOf` looks at the run, and not at its key's row only. */
export const looksAtRun = (rule: IdentityRule): boolean => rule._tag !== "window"

/** Until when the row is kept at least; while its run is not final it is kept in any case. */
export const expiryOf = (rule: IdentityRule, now: number): number =>
  rule._tag === "window" ? Math.ceil(now) + rule.windowMs : Math.ceil(now)

/** When the run of a debounced key shall start, asked for once more. */
export const debouncedUntil = (
  rule: { readonly quietMs: number; readonly maxWaitMs: number },
  firstAt: number,
  now: number
): number => Math.ceil(Math.min(now + rule.quietMs, Math.max(now, firstAt + rule.maxWaitMs)))

/** As seen at `now`: a run whose time has come waits for nothing but a worker. */
export const lifeOf = (
  run: { readonly state: LiveState; readonly attempt: number; readonly scheduledAt: number },
  now: number
): Life => {
  const isDue = run.state !== "running" && run.scheduledAt <= now
  return { state: isDue ? "ready" : run.state, attempt: run.attempt }
}
