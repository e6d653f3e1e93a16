/**
 * How long final runs stay readable, by how they ended. Said of a queue (`QueueSettings`), and for all by the nodes.
 *
 * The periods are few and fixed, because the history is laid out by them: what has the same one is dropped together, whole
 * partitions at a time (docs/decisions/0026). A run gets its period when it ends; later settings do not change it.
 */
import { Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import type { FinalState } from "./RunState.js"

export const retentionPeriods = ["1 day", "7 days", "30 days", "90 days", "365 days", "forever"] as const

/** Kept for at least so long after its end. */
export const RetentionPeriod = Schema.Literal(...retentionPeriods)
export type RetentionPeriod = typeof RetentionPeriod.Type

const period = Schema.optionalWith(RetentionPeriod, { exact: true })

/** What is left out is as said elsewhere: by the code, or by the node. */
export const QueueRetention = Schema.Struct({ succeeded: period, failed: period, cancelled: period, expired: period })
export type QueueRetention = typeof QueueRetention.Type

/** Days by the state in which a run ends. 0: for ever. */
export type KeptDays = { readonly [State in FinalState]: number }

const days: { readonly [Period in RetentionPeriod]: number } = {
  "1 day": 1,
  "7 days": 7,
  "30 days": 30,
  "90 days": 90,
  "365 days": 365,
  forever: 0
}

export const dayMs = 24 * 3_600_000

/** Successes for a week; what needs to be looked into for a month. */
export const retentionDefault = {
  succeeded: "7 days",
  failed: "30 days",
  cancelled: "30 days",
  expired: "30 days"
} as const satisfies QueueRetention

const states = Object.keys(retentionDefault) as ReadonlyArray<keyof typeof retentionDefault>

/** Those of `above` before those of `below`. */
export const over = (below: QueueRetention = {}, above: QueueRetention = {}): QueueRetention => ({ ...below, ...above })

/** What holds, where nothing is left out but what the default says. */
export const keptDaysOf = (retention: QueueRetention = {}): KeptDays => {
  const all = { ...retentionDefault, ...retention }
  return {
    succeeded: days[all.succeeded],
    failed: days[all.failed],
    cancelled: days[all.cancelled],
    expired: days[all.expired]
  }
}

/** The longest of all, days; `undefined`: one is for ever. Of runs of which is not known what was said. */
export const longestOf = (kept: KeptDays): number | undefined => {
  const all = Object.values(kept)
  return all.includes(0) ? undefined : Math.max(...all)
}

/** What is wrong with what is said of a queue, if anything. */
export const retentionProblem = (retention: unknown): InvalidRequest | undefined => {
  const refuse = (field: string, limit: string, actual: unknown) =>
    new InvalidRequest({ field, limit, actual: String(actual).slice(0, 300) })
  if (typeof retention !== "object" || retention === null || Array.isArray(retention)) {
    return refuse("retention", `an object of ${states.join(", ")}`, retention)
  }
  const said = Object.entries(retention)
  if (said.length === 0) return refuse("retention", `at least one of ${states.join(", ")}`, "none of them")
  for (const [state, value] of said) {
    if (!states.some((each) => each === state)) return refuse("retention", `an object of ${states.join(", ")}`, state)
    if (value === "none") {
      return refuse(`retention.${state}`, `${periods}; "none" is said of a task, of its successes`, value)
    }
    if (!retentionPeriods.some((each) => each === value)) return refuse(`retention.${state}`, periods, value)
  }
  return undefined
}

const periods = `one of ${retentionPeriods.join(", ")}`

/** `succeeded=1 day,failed=90 days`; what is left out has its default. `undefined`: not of this form. */
export const parse = (text: string): QueueRetention | undefined => {
  const said: Record<string, string> = {}
  for (const part of text.split(",").map((each) => each.trim()).filter((each) => each !== "")) {
    const [, state = "", value = ""] = /^(\w+)\s*=\s*(.+)$/.exec(part) ?? []
    if (state in said) return undefined
    said[state] = value
  }
  return Object.keys(said).length === 0 || retentionProblem(said) === undefined ? said : undefined
}

export const accepts = `a list of state=period, such as "succeeded=1 day,failed=90 days" (${
  states.join(", ")
}; ${periods})`
