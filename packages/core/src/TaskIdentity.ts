/** How a task tells which of its requests are one: options turned into an `IdentityRule` and a key per request. */
import { Duration, Option } from "effect"
import { InvalidRequest } from "./Errors.js"
import {
  debounceMsMax,
  identityProblem,
  type IdentityRule,
  LiveState,
  windowMsDefault,
  windowMsMax
} from "./Identity.js"
import { keyLengthMax } from "./RunKeys.js"
import { type Backlog, depthMax } from "./RunRequest.js"

interface Keyed<P> {
  /** Requests with the same key are one. Default: all of the task are. */
  readonly key?: (payload: P) => string
}

/** At most one of these. Each request is answered with the id of the run that stands for it. */
export interface IdentityOptions<P> {
  /** Requests with the same key are answered with the first one's run, final or not, for `idempotencyWindow`. */
  readonly idempotencyKey?: (payload: P) => string
  /** 1 ms to 366 days, from the first request on. Default 1 day. Also for keys that only enqueues give. */
  readonly idempotencyWindow?: Duration.DurationInput
  /**
   * No second run while the first is in one of the states `while` (default: until it is final); or, with `window`, none for so long
   * after the first. Not both.
   */
  readonly unique?: Keyed<P> & {
    readonly while?: ReadonlyArray<LiveState>
    readonly window?: Duration.DurationInput
  }
  /**
   * The run starts once no request has come for `wait`, at the latest `maxWait` (default 10 x `wait`) after the first, with the payload and
   * priority of the last. A request that comes after it has begun makes the next one. 1 ms to 1 day each.
   */
  readonly debounce?: Keyed<P> & { readonly wait: Duration.DurationInput; readonly maxWait?: Duration.DurationInput }
  /** The first request makes a run; none of the others within `per` does. 1 ms to 366 days. */
  readonly throttle?: Keyed<P> & { readonly per: Duration.DurationInput }
  /** While a run has begun and is not final, at most one more waits behind it, with the payload and priority of the last request. */
  readonly keepLast?: Keyed<P>
}

/** Bounds of what waits. Exact: kept by the owner of each partition of the queue, for what is in it. */
export interface BacklogOptions {
  /** Runs of the queue, of whatever task, that are not final: with as many no run of this task comes in (`QueueFull`). 1 to 100,000. */
  readonly maxDepth?: number
  /** The same of each tenant (`QuotaExceeded`). Only with `fairnessKey` and `maxDepth`, and not above it. */
  readonly maxDepthPerTenant?: number
}

/** For one call. */
export interface IdentityOverrides {
  /** Instead of the task's `idempotencyKey`; also of a task that has no identity. */
  readonly idempotencyKey?: string
  /** Instead of the key of the task's `unique`, `debounce`, `throttle` or `keepLast`. */
  readonly identityKey?: string
}

const everyone = "*"

const invalid = (field: string, limit: string, actual: unknown) =>
  new InvalidRequest({ field, limit, actual: String(actual).slice(0, 250) })

const msOf = (field: string, given: Duration.DurationInput, max: number): number => {
  const duration = Option.getOrUndefined(Duration.decodeUnknown(given))
  const ms = duration === undefined ? Number.NaN : Duration.toMillis(duration)
  if (!Number.isInteger(ms) || ms < 1 || ms > max) {
    throw invalid(field, `1 to ${max} ms`, duration === undefined ? given : Duration.format(duration))
  }
  return ms
}

const modes = ["idempotencyKey", "unique", "debounce", "throttle", "keepLast"] as const
type Mode = typeof modes[number]

export interface TaskIdentity<P> {
  readonly mode: Mode | undefined
  readonly rule: IdentityRule | undefined
  /** The key of a request. `undefined`: it has none. */
  readonly keyOf: (payload: P, overrides: IdentityOverrides) => string | undefined | InvalidRequest
  /** What keeps a run behind the one before: part of its keys. */
  readonly orderOf: (identity: string | undefined) => string | undefined
}

/** Throws `InvalidRequest` on a bad definition, naming the options. `task` is its name. */
export const make = <P>(
  task: string,
  options: IdentityOptions<P> & { readonly orderingKey?: unknown }
): TaskIdentity<P> => {
  const given = modes.filter((mode) => options[mode] !== undefined)
  if (given.length > 1) throw invalid(given[1]!, `absent when ${given[0]} is given`, "given")
  const [mode] = given
  if (mode === "keepLast" && options.orderingKey !== undefined) {
    throw invalid("orderingKey", "absent when keepLast is given, which orders the runs of its key", "given")
  }
  if (options.idempotencyWindow !== undefined && mode !== undefined && mode !== "idempotencyKey") {
    throw invalid("idempotencyWindow", `absent when ${mode} is given`, "given")
  }
  const rule = ruleOf(mode, options)
  const keyed = mode === undefined || mode === "idempotencyKey" ? undefined : options[mode]
  const ownKey = (payload: P, { idempotencyKey, identityKey }: IdentityOverrides): string | undefined => {
    if (idempotencyKey !== undefined && keyed !== undefined) {
      throw invalid("idempotencyKey", `absent for a task with ${mode}`, "given")
    }
    if (identityKey !== undefined && keyed === undefined) {
      throw invalid("identityKey", "absent for a task without unique, debounce, throttle or keepLast", "given")
    }
    if (keyed === undefined) return idempotencyKey ?? options.idempotencyKey?.(payload)
    return identityKey ?? (keyed.key === undefined ? everyone : keyed.key(payload))
  }
  const orderOf = (identity: string | undefined) =>
    mode !== "keepLast" || identity === undefined ? undefined : `${task}|${identity}`
  return {
    mode,
    rule,
    orderOf,
    keyOf: (payload, overrides) => {
      try {
        const key: unknown = ownKey(payload, overrides)
        if (key === undefined && (mode !== "idempotencyKey")) return undefined
        if (typeof key !== "string") return invalid("identity", "a text", key)
        const tooLong = (orderOf(key)?.length ?? 0) > keyLengthMax
          ? invalid("keepLast.key", `at most ${keyLengthMax - task.length - 1} characters beside the task's name`, key)
          : undefined
        return identityProblem(key) ?? tooLong ?? key
      } catch (error) {
        if (error instanceof InvalidRequest) return error
        throw error
      }
    }
  }
}

const ruleOf = <P>(mode: Mode | undefined, options: IdentityOptions<P>): IdentityRule | undefined => {
  const { debounce, idempotencyWindow, throttle, unique } = options
  switch (mode) {
    case undefined:
    case "idempotencyKey": {
      if (idempotencyWindow === undefined) return undefined
      const windowMs = msOf("idempotencyWindow", idempotencyWindow, windowMsMax)
      return windowMs === windowMsDefault ? undefined : { _tag: "window", windowMs }
    }
    case "unique": {
      const { while: states, window } = unique!
      if (window !== undefined && states !== undefined) {
        throw invalid("unique.window", "absent when unique.while is given", window)
      }
      if (window !== undefined) return { _tag: "window", windowMs: msOf("unique.window", window, windowMsMax) }
      const all = LiveState.literals
      const bad = states?.find((state) => !all.includes(state))
      if (bad !== undefined || states?.length === 0) {
        throw invalid("unique.while", `some of ${all.join(", ")}`, bad ?? "none")
      }
      return { _tag: "states", states: [...new Set(states ?? all)] }
    }
    case "debounce": {
      const quietMs = msOf("debounce.wait", debounce!.wait, debounceMsMax)
      const maxWaitMs = debounce!.maxWait === undefined
        ? Math.min(debounceMsMax, 10 * quietMs)
        : msOf("debounce.maxWait", debounce!.maxWait, debounceMsMax)
      if (maxWaitMs < quietMs) throw invalid("debounce.maxWait", `at least debounce.wait, ${quietMs} ms`, maxWaitMs)
      return { _tag: "debounce", quietMs, maxWaitMs }
    }
    case "throttle":
      return { _tag: "window", windowMs: msOf("throttle.per", throttle!.per, windowMsMax) }
    case "keepLast":
      return { _tag: "keepLast" }
  }
}

/** Throws `InvalidRequest` on a bad bound. */
export const backlogOf = (
  { fairnessKey, maxDepth, maxDepthPerTenant }: BacklogOptions & { readonly fairnessKey?: unknown }
): { readonly backlog?: Backlog } => {
  const whole = (field: string, value: number, max: number, limit = `an integer from 1 to ${max}`) => {
    if (!Number.isInteger(value) || value < 1 || value > max) throw invalid(field, limit, value)
  }
  if (maxDepthPerTenant !== undefined && (maxDepth === undefined || fairnessKey === undefined)) {
    const missing = maxDepth === undefined ? "maxDepth" : "fairnessKey"
    throw invalid("maxDepthPerTenant", `absent without ${missing}`, maxDepthPerTenant)
  }
  if (maxDepth === undefined) return {}
  whole("maxDepth", maxDepth, depthMax)
  if (maxDepthPerTenant === undefined) return { backlog: { maxDepth } }
  whole("maxDepthPerTenant", maxDepthPerTenant, maxDepth, `an integer from 1 to maxDepth, ${maxDepth}`)
  return { backlog: { maxDepth, maxDepthPerTenant } }
}
