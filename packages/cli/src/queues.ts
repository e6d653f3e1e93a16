/** `orrery queues`: settings of queues while they run, and what happens in them. */
import { Command, Options } from "@effect/cli"
import { InvalidRequest } from "@orrery/core/Errors"
import type { KeyOf, QueueCall, QueueLimits, QueueRecord } from "@orrery/core/QueueSettings"
import { queuesLimitMax } from "@orrery/core/QueueSettingsStore"
import { Queues } from "@orrery/core/Queues"
import { type QueueRetention, type RetentionPeriod, retentionPeriods } from "@orrery/core/Retention"
import { Console, Effect, Option, Schema } from "effect"
import * as Client from "./client.js"
import * as options from "./options.js"
import * as watch from "./watch.js"
import { durationMs } from "./scheduleSpecOptions.js"

const limitDefault = 100
const common = { nodes: options.nodes, json: options.json }
const named = {
  ...common,
  queue: options.namedArg("QUEUE"),
  namespace: options.named("namespace").pipe(Options.withDefault("default"))
}
const changing = {
  ...named,
  by: Options.text("by").pipe(Options.withDescription("Who."), Options.withDefault("orrery queues")),
  expected: Options.integer("revision").pipe(
    Options.withDescription("Do it only at this revision. Left out: whatever it is."),
    Options.optional
  )
}
const key = Options.text("key").pipe(
  Options.withPseudoName("KIND:KEY"),
  Options.withDescription(
    "Only runs with this key: fairness:KEY, ordering:KEY, or concurrency:NAME=KEY (NAME of the limit or rate, by default its"
      + " task's; KEY * for a limit without keys)."
  ),
  Options.optional
)

const iso = (ms: number | null) => ms === null ? "-" : new Date(ms).toISOString()
const keyText = (of: KeyOf) => of.kind === "concurrency" ? `${of.kind}:${of.name}=${of.key}` : `${of.kind}:${of.key}`

const limitsText = (
  { backlog, concurrency, limiters = [], limits = [], rate, rates = [] }: QueueLimits
): ReadonlyArray<string> => [
  ...concurrency === undefined ? [] : [`concurrency ${concurrency}`],
  ...backlog === undefined ? [] : [`max depth ${backlog.maxDepth}${perTenantText(backlog.maxDepthPerTenant)}`],
  ...rate === undefined ? [] : [`rate ${rate.limit} per ${rate.perMs} ms`],
  ...limiters.map((each) =>
    `limiter ${each.name} ${each.limit} ${each.kind === "rate" ? `per ${each.perMs} ms` : "at once"}`
  ),
  ...limits.map((each) => `limit ${nameText(each)} ${each.limit}`),
  ...rates.map((each) => `rate ${nameText(each)} ${each.limit} per ${each.perMs} ms`)
]
const retentionText = (retention: QueueRetention = {}): ReadonlyArray<string> =>
  Object.entries(retention).map(([state, period]) => `kept when ${state}: ${period}`)
const perTenantText = (maxDepth: number | undefined) => maxDepth === undefined ? "" : `, per tenant ${maxDepth}`
const nameText = ({ key, name }: { readonly name: string; readonly key?: string }) =>
  key === undefined ? name : `${name}=${key}`

const linesOf = (
  { changedAt, changedBy, namespace, queue, revision, settings }: QueueRecord
): ReadonlyArray<string> => [
  `${namespace}/${queue}  revision ${revision}  ${iso(changedAt)}  ${changedBy ?? "-"}`,
  ...settings.paused === undefined ? [] : [`  paused by ${settings.paused.by}: ${settings.paused.why}`],
  ...settings.pausedKeys.map(({ of, pause }) => `  paused ${keyText(of)} by ${pause.by}: ${pause.why}`),
  ...limitsText(settings.override).map((text) => `  ${text}`),
  ...retentionText(settings.retention).map((text) => `  ${text}`),
  ...settings.declared === undefined
    ? []
    : [...limitsText(settings.declared.limits), ...retentionText(settings.declared.retention)]
      .map((text) => `  ${text} (declared, version ${settings.declared!.version})`)
]

const show = (record: QueueRecord, json: boolean) =>
  Console.log(json ? JSON.stringify(record) : linesOf(record).join("\n"))

const list = Command.make(
  "list",
  {
    ...common,
    namespace: options.named("namespace").pipe(Options.optional),
    after: Options.text("after").pipe(
      Options.withPseudoName("NAMESPACE|QUEUE"),
      Options.withDescription("Queues after this: the last of the page before."),
      Options.optional
    ),
    limit: Options.integer("limit").pipe(
      Options.withSchema(Schema.Int.pipe(Schema.between(1, queuesLimitMax))),
      Options.withDescription(`1 to ${queuesLimitMax}. Default: ${limitDefault}.`),
      Options.withDefault(limitDefault)
    )
  },
  ({ after, json, limit, namespace, nodes }) =>
    Effect.gen(function*() {
      const queues = yield* Queues
      const found = yield* queues.list({
        limit,
        ...Option.isSome(namespace) ? { namespace: namespace.value } : {},
        ...Option.isSome(after) ? { after: after.value } : {}
      })
      yield* Effect.forEach(found, (record) => show(record, json), { discard: true })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("Queues that have had a run or a setting, and what is said of them."))

const get = Command.make("show", named, ({ json, namespace, nodes, queue }) =>
  Effect.gen(function*() {
    const queues = yield* Queues
    yield* show(yield* queues.get({ namespace, queue }), json)
  }).pipe(Effect.provide(Client.layer(nodes)))).pipe(Command.withDescription("What is said of one queue."))

interface Changing {
  readonly nodes: Option.Option<ReadonlyArray<string>>
  readonly json: boolean
  readonly queue: string
  readonly namespace: string
  readonly by: string
  readonly expected: Option.Option<number>
}

const commonOf = ({ by, expected, namespace, queue }: Changing) => ({
  namespace,
  queue,
  by,
  ...Option.isSome(expected) ? { expected: expected.value } : {}
})

const ask = (call: QueueCall, { json, nodes }: Changing) =>
  Effect.gen(function*() {
    const queues = yield* Queues
    yield* show(yield* queues.call(call), json)
  }).pipe(Effect.provide(Client.layer(nodes)))

const keyOf = (text: Option.Option<string>): Effect.Effect<{ readonly key?: KeyOf }, InvalidRequest> => {
  if (Option.isNone(text)) return Effect.succeed({})
  const [, kind, rest = ""] = /^([a-z]+):(.+)$/s.exec(text.value) ?? []
  if (kind === "fairness" || kind === "ordering") return Effect.succeed({ key: { kind, key: rest } })
  const at = namedAt(rest)
  return kind === "concurrency" && at > 0
    ? Effect.succeed({ key: { kind, name: rest.slice(0, at), key: rest.slice(at + 1) } })
    : new InvalidRequest({
      field: "--key",
      limit: "fairness:KEY, ordering:KEY or concurrency:NAME=KEY",
      actual: text.value.slice(0, 300)
    })
}

/** Where the name of a limit ends: it holds none. */
const namedAt = (text: string): number => text.indexOf("=")

const pause = Command.make(
  "pause",
  { ...changing, key, why: Options.text("why").pipe(Options.withDefault("")) },
  (flags) =>
    Effect.flatMap(keyOf(flags.key), (of) => ask({ _tag: "pause", ...commonOf(flags), why: flags.why, ...of }, flags))
).pipe(Command.withDescription("Nothing of the queue, or of a key, starts until it is resumed. What runs goes on."))

const resume = Command.make(
  "resume",
  { ...changing, key },
  (flags) => Effect.flatMap(keyOf(flags.key), (of) => ask({ _tag: "resume", ...commonOf(flags), ...of }, flags))
).pipe(Command.withDescription("Goes on: the queue, or with --key that key."))

const limitFlag = (name: string, what: string) =>
  Options.integer(name).pipe(Options.withDescription(what), Options.optional)

const setLimit = Command.make(
  "set-limit",
  {
    ...changing,
    concurrency: limitFlag("concurrency", "Attempts at once; of the whole queue, or with --name of a limit."),
    rate: limitFlag("rate", "Starts in each period of --per; of the whole queue, or with --name of a rate."),
    maxDepth: limitFlag("max-depth", "Runs that are not final: with as many none comes in. Of the whole queue."),
    maxDepthPerTenant: limitFlag("max-depth-per-tenant", "The same of each fairness key. With --max-depth."),
    per: durationMs("per").pipe(Options.withDescription("Period of --rate. Default: a second."), Options.optional),
    name: Options.text("name").pipe(
      Options.withPseudoName("NAME[=KEY]"),
      Options.withDescription(
        "A limit or rate that tasks have named, of all its keys or of one. Default: the queue's own."
      ),
      Options.optional
    )
  },
  (flags) => Effect.flatMap(limitsOf(flags), (limits) => ask({ _tag: "setLimits", ...commonOf(flags), limits }, flags))
).pipe(
  Command.withDescription(
    "Goes before what tasks and the code say, at once, until reset-limits. Nothing running is ended."
  )
)

interface Limiting {
  readonly concurrency: Option.Option<number>
  readonly rate: Option.Option<number>
  readonly maxDepth: Option.Option<number>
  readonly maxDepthPerTenant: Option.Option<number>
  readonly per: Option.Option<number>
  readonly name: Option.Option<string>
}

const secondMs = 1_000

const limitsOf = (flags: Limiting): Effect.Effect<QueueLimits, InvalidRequest> => {
  const { concurrency, maxDepth, maxDepthPerTenant, name, per, rate } = flags
  const refuse = (field: string, limit: string, actual: unknown) =>
    new InvalidRequest({ field, limit, actual: String(actual) })
  if ([concurrency, rate, maxDepth, maxDepthPerTenant].every(Option.isNone)) {
    return refuse("limit", "--concurrency, --rate or --max-depth", "none")
  }
  if (Option.isNone(maxDepth) && Option.isSome(maxDepthPerTenant)) {
    return refuse("--max-depth-per-tenant", "absent without --max-depth", maxDepthPerTenant.value)
  }
  if (Option.isSome(maxDepth) && Option.isSome(name)) {
    return refuse("--max-depth", "absent with --name: it is of the whole queue", maxDepth.value)
  }
  if (Option.isNone(rate) && Option.isSome(per)) {
    return new InvalidRequest({ field: "--per", limit: "absent without --rate", actual: String(per.value) })
  }
  const at = Option.isSome(name) ? namedAt(name.value) : -1
  const of = Option.isNone(name)
    ? undefined
    : at < 0
    ? { name: name.value }
    : { name: name.value.slice(0, at), key: name.value.slice(at + 1) }
  const times = Option.isNone(rate)
    ? undefined
    : { limit: rate.value, perMs: Option.getOrElse(per, () => secondMs) }
  return Effect.succeed({
    ...Option.isNone(concurrency)
      ? {}
      : of === undefined
      ? { concurrency: concurrency.value }
      : { limits: [{ ...of, limit: concurrency.value }] },
    ...times === undefined ? {} : of === undefined ? { rate: times } : { rates: [{ ...of, ...times }] },
    ...Option.isNone(maxDepth)
      ? {}
      : {
        backlog: {
          maxDepth: maxDepth.value,
          ...Option.isNone(maxDepthPerTenant) ? {} : { maxDepthPerTenant: maxDepthPerTenant.value }
        }
      }
  })
}

const resetLimits = Command.make(
  "reset-limits",
  changing,
  (flags) => ask({ _tag: "resetLimits", ...commonOf(flags) }, flags)
).pipe(Command.withDescription("Takes all of set-limit back: what tasks and the code say holds."))

const periodFlag = (state: keyof QueueRetention, what: string) =>
  Options.text(state).pipe(
    Options.withPseudoName("PERIOD"),
    Options.withDescription(`${what}: ${retentionPeriods.join(", ")}. Left out: as it was.`),
    Options.optional
  )

const setRetention = Command.make(
  "set-retention",
  {
    ...changing,
    succeeded: periodFlag("succeeded", "Runs that succeed"),
    failed: periodFlag("failed", "Dead letters"),
    cancelled: periodFlag("cancelled", "Runs that are cancelled"),
    expired: periodFlag("expired", "Runs whose time in line or deadline is over")
  },
  (flags) => {
    const { cancelled, expired, failed, succeeded } = flags
    const said = Object.entries({ succeeded, failed, cancelled, expired }).flatMap(([state, given]) =>
      Option.isSome(given) ? [[state, given.value as RetentionPeriod] as const] : []
    )
    // Checked where settings are changed.
    return ask({ _tag: "setRetention", ...commonOf(flags), retention: Object.fromEntries(said) }, flags)
  }
).pipe(
  Command.withDescription(
    "How long runs are kept at least that end from now on, by how they end. Goes before what the code says, until reset-retention."
  )
)

const resetRetention = Command.make(
  "reset-retention",
  changing,
  (flags) => ask({ _tag: "resetRetention", ...commonOf(flags) }, flags)
).pipe(Command.withDescription("Takes all of set-retention back: what the code and the nodes say holds."))

export const command = Command.make("queues").pipe(
  Command.withDescription(
    "Look at queues; pause them, or their keys; change their limits and retention while they run."
  ),
  Command.withSubcommands([
    list,
    get,
    pause,
    resume,
    setLimit,
    resetLimits,
    setRetention,
    resetRetention,
    watch.ofQueue
  ])
)
