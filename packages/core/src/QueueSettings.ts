/**
 * What is said of a queue while it runs: paused or not, which of its keys are, and its limits. One row per queue with a
 * revision that grows with each change; whoever changes it names the revision that it has seen, so nothing is overwritten
 * unseen.
 *
 * Limits are said in two places. What a release of the code declares is replaced by a higher version only, so a stale
 * deploy changes nothing. What people say at run time goes before it, and stays through deploys until it is taken back.
 */
import { Either, Schema } from "effect"
import { InvalidRequest } from "./Errors.js"
import { limitersPerTaskMax, LimiterTerms } from "./LimiterTerms.js"
import { Name } from "./Name.js"
import { concurrencyMax, keyLengthMax, RateAlgorithm, rateLimitMax, ratePeriodMsMax } from "./RunKeys.js"
import { over as overRetention, QueueRetention, retentionProblem } from "./Retention.js"
import { Backlog } from "./RunRequest.js"
import { refusalOf } from "./schedule/ScheduleSpec.js"

/** Most keys of one queue that are paused at once. */
export const pausedKeysMax = 1_000
/** Most limits with a name, and most rates with one, that are said of one queue. */
export const namedLimitsMax = 100
/** Longest `by` and `why`, in characters. */
export const reasonLengthMax = 1_000

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })
const Text = Schema.String.pipe(Schema.maxLength(reasonLengthMax), Schema.pattern(/^[^\u0000]*$/))
const Key = Schema.String.pipe(Schema.minLength(1), Schema.maxLength(keyLengthMax), Schema.pattern(/^[^\u0000]*$/))
const Concurrency = Schema.Int.pipe(Schema.between(1, concurrencyMax))
const rate = {
  /** Starts in each period. */
  limit: Schema.Int.pipe(Schema.between(1, rateLimitMax)),
  perMs: Schema.Int.pipe(Schema.between(1, ratePeriodMsMax))
}
const named = {
  /** Of the limit, as the task says it. */
  name: Name,
  /** Left out: for all keys that nothing else is said of. */
  key: optional(Key)
}

export const Pause = Schema.Struct({ by: Text, why: Text, at: Schema.Number })
export type Pause = typeof Pause.Type

/** A key whose runs can be paused. `concurrency` means those of a limit or rate of this name. */
export const KeyOf = Schema.Union(
  Schema.Struct({ kind: Schema.Literal("fairness", "ordering"), key: Key }),
  Schema.Struct({ kind: Schema.Literal("concurrency"), name: Name, key: Key })
)
export type KeyOf = typeof KeyOf.Type

export const PausedKey = Schema.Struct({ of: KeyOf, pause: Pause })
export type PausedKey = typeof PausedKey.Type

/** Starts of all runs of a queue, counted over time, as `RateKey`. Default "window". */
export const QueueRate = Schema.Struct({ ...rate, algorithm: optional(RateAlgorithm) })
export type QueueRate = typeof QueueRate.Type

export const NamedLimit = Schema.Struct({ ...named, limit: Concurrency })
export type NamedLimit = typeof NamedLimit.Type
export const NamedRate = Schema.Struct({ ...named, ...rate })
export type NamedRate = typeof NamedRate.Type

export const QueueLimits = Schema.Struct({
  /** Attempts of the queue at once. */
  concurrency: optional(Concurrency),
  rate: optional(QueueRate),
  /** Runs of the queue that are not final, of whatever task: instead of what the tasks say. */
  backlog: optional(Backlog),
  /**
   * Limits that span queues, which each run of the queue needs beside those of its task; of one name, as its task says. Not divided
   * among the partitions.
   */
  limiters: optional(
    Schema.Array(LimiterTerms).pipe(
      Schema.maxItems(limitersPerTaskMax),
      Schema.filter((all) =>
        new Set(all.map(({ name }) => name)).size === all.length || "limiters of one queue are each of another name"
      )
    )
  ),
  /** Instead of what the tasks say of these limits. */
  limits: optional(Schema.Array(NamedLimit).pipe(Schema.maxItems(namedLimitsMax))),
  rates: optional(Schema.Array(NamedRate).pipe(Schema.maxItems(namedLimitsMax)))
})
export type QueueLimits = typeof QueueLimits.Type

const Version = Schema.Int.pipe(Schema.between(1, Number.MAX_SAFE_INTEGER))

export const QueueSettings = Schema.Struct({
  paused: optional(Pause),
  pausedKeys: Schema.Array(PausedKey).pipe(Schema.maxItems(pausedKeysMax)),
  /** By the code. */
  declared: optional(
    Schema.Struct({ version: Version, limits: QueueLimits, retention: optional(QueueRetention) })
  ),
  /** By people, at run time. */
  override: QueueLimits,
  /** By people, at run time. */
  retention: optional(QueueRetention)
})
export type QueueSettings = typeof QueueSettings.Type

/** The settings of one queue. Revision 0: nothing was ever said of it. */
export const QueueRecord = Schema.Struct({
  namespace: Name,
  queue: Name,
  revision: Schema.Int.pipe(Schema.nonNegative()),
  /** Ms since 1970 by the database clock; `null` at revision 0. */
  changedAt: Schema.NullOr(Schema.Number),
  changedBy: Schema.NullOr(Text),
  settings: QueueSettings
})
export type QueueRecord = typeof QueueRecord.Type

export interface QueueName {
  readonly namespace: string
  readonly queue: string
}

export const unset = ({ namespace, queue }: QueueName): QueueRecord => ({
  namespace,
  queue,
  revision: 0,
  changedAt: null,
  changedBy: null,
  settings: { pausedKeys: [], override: {} }
})

const common = {
  namespace: Name,
  queue: Name,
  by: Text,
  /** The revision the caller has seen: at any other nothing is done. Left out: whatever it is. */
  expected: optional(Schema.Int)
}

/** What can be asked of the settings of a queue. All of it may be asked again when no answer came. */
export const QueueCall = Schema.Union(
  /** What a release of the code says: a higher version replaces a lower one, any other changes nothing. */
  Schema.TaggedStruct("declare", {
    ...common,
    version: Version,
    limits: QueueLimits,
    retention: optional(QueueRetention)
  }),
  /** Nothing of it starts until `resume`; what runs goes on. With `key`: of runs with that key. */
  Schema.TaggedStruct("pause", { ...common, why: Text, key: optional(KeyOf) }),
  Schema.TaggedStruct("resume", { ...common, key: optional(KeyOf) }),
  /** Goes before what is declared. What is left out stays as it was. */
  Schema.TaggedStruct("setLimits", { ...common, limits: QueueLimits }),
  /** Takes back all that `setLimits` has said: what is declared holds. */
  Schema.TaggedStruct("resetLimits", common),
  /** How long runs are kept that end from now on; goes before what is declared. What is left out stays as it was. */
  Schema.TaggedStruct("setRetention", { ...common, retention: QueueRetention }),
  /** Takes back all that `setRetention` has said. */
  Schema.TaggedStruct("resetRetention", common)
)
export type QueueCall = typeof QueueCall.Type

const decodeCall = Schema.decodeUnknownEither(QueueCall, { onExcessProperty: "error" })

/** What is wrong with a call, if anything. */
export const checkCall = (call: QueueCall): InvalidRequest | undefined => {
  const problem = "retention" in call ? retentionProblem(call.retention) : undefined
  if (problem !== undefined) return problem
  const decoded = decodeCall(call)
  if (Either.isLeft(decoded)) return refusalOf("settings")(decoded.left)
  const { maxDepth = 0, maxDepthPerTenant = 0 } = ("limits" in call ? call.limits.backlog : undefined) ?? {}
  return maxDepthPerTenant <= maxDepth ? undefined : new InvalidRequest({
    field: "backlog.maxDepthPerTenant",
    limit: `at most backlog.maxDepth, ${maxDepth}`,
    actual: String(maxDepthPerTenant)
  })
}

export const sameKey = (a: KeyOf, b: KeyOf): boolean =>
  a.kind === b.kind && a.key === b.key
  && (a.kind !== "concurrency" || b.kind !== "concurrency" || a.name === b.name)

/** The settings after a checked call; the same object when it changes nothing. */
export const step = (
  settings: QueueSettings,
  call: QueueCall,
  now: number
): Either.Either<QueueSettings, InvalidRequest> => {
  switch (call._tag) {
    case "declare":
      return Either.right(
        settings.declared !== undefined && settings.declared.version >= call.version
          ? settings
          : { ...settings, declared: declaredBy(call) }
      )
    case "pause":
      return paused(settings, { by: call.by, why: call.why, at: now }, call.key)
    case "resume":
      return Either.right(resumed(settings, call.key))
    case "setLimits":
      return Either.map(
        merged(settings.override, call.limits),
        (override) => isSame(override, settings.override) ? settings : { ...settings, override }
      )
    case "resetLimits":
      return Either.right(isSame(settings.override, {}) ? settings : { ...settings, override: {} })
    case "setRetention":
      return Either.right(retained(settings, overRetention(settings.retention, call.retention)))
    case "resetRetention": {
      const { retention, ...rest } = settings
      return Either.right(retention === undefined ? settings : rest)
    }
  }
}

const declaredBy = ({ limits, retention, version }: QueueCall & { readonly _tag: "declare" }) => ({
  version,
  limits,
  ...retention === undefined ? {} : { retention }
})

const retained = (settings: QueueSettings, retention: QueueRetention): QueueSettings =>
  isSame(retention, settings.retention ?? {}) ? settings : { ...settings, retention }

const paused = (
  settings: QueueSettings,
  pause: Pause,
  of: KeyOf | undefined
): Either.Either<QueueSettings, InvalidRequest> => {
  const isAsked = (before: Pause | undefined) => before?.by === pause.by && before.why === pause.why
  if (of === undefined) return Either.right(isAsked(settings.paused) ? settings : { ...settings, paused: pause })
  const before = settings.pausedKeys.find((each) => sameKey(each.of, of))
  if (before !== undefined && isAsked(before.pause)) return Either.right(settings)
  const others = settings.pausedKeys.filter((each) => each !== before)
  if (others.length >= pausedKeysMax) {
    return Either.left(
      new InvalidRequest({
        field: "paused keys",
        limit: `at most ${pausedKeysMax} of one queue`,
        actual: String(others.length + 1)
      })
    )
  }
  return Either.right({ ...settings, pausedKeys: [...others, { of, pause }] })
}

const resumed = (settings: QueueSettings, of: KeyOf | undefined): QueueSettings => {
  if (of === undefined) {
    if (settings.paused === undefined) return settings
    const { paused: _, ...rest } = settings
    return rest
  }
  const pausedKeys = settings.pausedKeys.filter((each) => !sameKey(each.of, of))
  return pausedKeys.length === settings.pausedKeys.length ? settings : { ...settings, pausedKeys }
}

interface Named {
  readonly name: string
  readonly key?: string
}

const isOf = (a: Named) => (b: Named): boolean => a.name === b.name && a.key === b.key

/** Those of `above` before those of `below`. */
const over = <A extends Named>(below: ReadonlyArray<A> = [], above: ReadonlyArray<A> = []): ReadonlyArray<A> => [
  ...below.filter((each) => !above.some(isOf(each))),
  ...above
]

const merge = (below: QueueLimits, above: QueueLimits): QueueLimits => {
  const limits = over(below.limits, above.limits)
  const rates = over(below.rates, above.rates)
  return {
    ...below,
    ...above,
    ...limits.length === 0 ? {} : { limits },
    ...rates.length === 0 ? {} : { rates }
  }
}

const merged = (below: QueueLimits, above: QueueLimits): Either.Either<QueueLimits, InvalidRequest> => {
  const all = merge(below, above)
  const most = Math.max(all.limits?.length ?? 0, all.rates?.length ?? 0)
  return most <= namedLimitsMax ? Either.right(all) : Either.left(
    new InvalidRequest({ field: "named limits", limit: `at most ${namedLimitsMax} of one queue`, actual: String(most) })
  )
}

/** Both were made by the same code of checked parts: their order of fields is the same, or the difference costs a revision. */
const isSame = <A extends QueueLimits | QueueRetention>(a: A, b: A): boolean => JSON.stringify(a) === JSON.stringify(b)

/** What the owner of one partition goes by. */
export interface QueueRules {
  readonly paused?: Pause
  readonly pausedKeys: ReadonlyArray<PausedKey>
  readonly concurrency?: number
  readonly rate?: QueueRate
  readonly backlog?: Backlog
  readonly limiters?: ReadonlyArray<LimiterTerms>
  readonly limits: ReadonlyArray<NamedLimit>
  readonly rates: ReadonlyArray<NamedRate>
  /** What is left out is as the nodes say for all queues. */
  readonly retention?: QueueRetention
}

export const noRules: QueueRules = { pausedKeys: [], limits: [], rates: [] }

/**
 * The part of one of `count` partitions: limits of the whole queue are divided, so that in sum they are never exceeded. One
 * is the least: a limit below the number of partitions is refused when it is set (`dividedProblem`).
 */
export const rulesOf = (settings: QueueSettings, partition: number, count: number): QueueRules => {
  const limits = merge(settings.declared?.limits ?? {}, settings.override)
  const retention = overRetention(settings.declared?.retention, settings.retention)
  const share = (limit: number) => Math.max(1, Math.floor(limit / count) + (partition < limit % count ? 1 : 0))
  return {
    ...settings.paused === undefined ? {} : { paused: settings.paused },
    pausedKeys: settings.pausedKeys,
    ...limits.concurrency === undefined ? {} : { concurrency: share(limits.concurrency) },
    ...limits.rate === undefined ? {} : { rate: { ...limits.rate, limit: share(limits.rate.limit) } },
    ...limits.backlog === undefined ? {} : { backlog: sharedBacklog(limits.backlog, share) },
    ...limits.limiters === undefined || limits.limiters.length === 0 ? {} : { limiters: limits.limiters },
    limits: limits.limits ?? [],
    rates: limits.rates ?? [],
    ...Object.keys(retention).length === 0 ? {} : { retention }
  }
}

const sharedBacklog = ({ maxDepth, maxDepthPerTenant }: Backlog, share: (limit: number) => number): Backlog => ({
  maxDepth: share(maxDepth),
  ...maxDepthPerTenant === undefined ? {} : { maxDepthPerTenant: share(maxDepthPerTenant) }
})

/** Limits of a whole queue that its partitions could not share. */
export const dividedProblem = (call: QueueCall, count: number): InvalidRequest | undefined => {
  const limits = "limits" in call ? call.limits : {}
  const parts = [
    ["concurrency", limits.concurrency],
    ["rate.limit", limits.rate?.limit],
    ["backlog.maxDepth", limits.backlog?.maxDepth],
    ["backlog.maxDepthPerTenant", limits.backlog?.maxDepthPerTenant]
  ] as const
  const small = parts.find(([, limit]) => limit !== undefined && limit < count)
  return small === undefined ? undefined : new InvalidRequest({
    field: small[0],
    limit: `at least ${count}, one for each partition of the queue`,
    actual: String(small[1])
  })
}

const decodeSettings = Schema.decodeUnknownEither(Schema.parseJson(QueueSettings))

/**
 * Settings as stored. A later release may have written what this one cannot read: the queue rests then, with that as the
 * reason, rather than run against what was said of it.
 */
export const parseSettings = (text: string): QueueSettings => {
  const decoded = decodeSettings(text)
  if (Either.isRight(decoded)) return decoded.right
  const why = `this release cannot read the settings of the queue: ${decoded.left.message}`.slice(0, reasonLengthMax)
  return { paused: { by: "orrery", why, at: 0 }, pausedKeys: [], override: {} }
}
