/** Commands on the schedules of a cluster. */
import { Args, Command, Options } from "@effect/cli"
import { nameLengthMax } from "@orrery/core/Name"
import { defaultPriority, priorityMax } from "@orrery/core/Run"
import * as NextFire from "@orrery/core/schedule/NextFire"
import * as ScheduleDefinition from "@orrery/core/schedule/ScheduleDefinition"
import type { Schedule, Tick } from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import { refusalOf } from "@orrery/core/schedule/ScheduleSpec"
import { type ScheduleCall, Schedules } from "@orrery/core/schedule/Schedules"
import { listLimitMax } from "@orrery/core/schedule/ScheduleStore"
import { Clock, Console, Effect, Either, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"
import * as Client from "./client.js"
import * as options from "./options.js"
import * as policyOptions from "./schedulePolicyOptions.js"
import * as specOptions from "./scheduleSpecOptions.js"

const limitDefault = 20

const common = { nodes: options.nodes, json: options.json }
const name = options.namedArg("name").pipe(
  Args.withDescription(`Name of the schedule, at most ${nameLengthMax} characters.`)
)
const namespace = options.named("namespace").pipe(Options.withDefault("default"))
const named = { ...common, name, namespace }
const expected = Options.integer("revision").pipe(
  Options.withDescription("Do it only if this is the schedule's revision still."),
  Options.optional
)
const limit = Options.integer("limit").pipe(
  Options.withSchema(Schema.Int.pipe(Schema.between(1, listLimitMax))),
  Options.withDefault(limitDefault)
)

const iso = (ms: number | null): string => ms === null ? "-" : new Date(ms).toISOString()
const idOf = (flags: { readonly name: string; readonly namespace: string }) => ScheduleDefinition.idOf(flags)
const guard = (revision: Option.Option<number>) => Option.isSome(revision) ? { expected: revision.value } : {}

const stateOf = ({ state }: Schedule): string => {
  if (state.paused !== null) return "paused"
  return state.nextAt === null && state.open.length === 0 && state.buffer.length === 0 ? "ended" : "active"
}

const lineOf = (schedule: Schedule): string => {
  const { definition, latenessMs, state } = schedule
  return [
    ScheduleDefinition.idOf(definition),
    stateOf(schedule).padEnd(6),
    `next ${iso(state.nextAt)}`,
    `runs ${state.fires}`,
    `missed ${state.missed}`,
    `skipped ${state.skipped}`,
    `late ${latenessMs === null ? "-" : `${Math.round(latenessMs)} ms`}`,
    `revision ${state.revision}`,
    ...(state.paused === null ? [] : [`(${state.paused.by}: ${state.paused.why})`])
  ].join("  ")
}

const show = (schedule: Schedule, json: boolean) => Console.log(json ? JSON.stringify(schedule) : lineOf(schedule))

const tickLine = (tick: Tick): string =>
  [
    `${iso(tick.first)}${tick.count > 1 ? ` to ${iso(tick.last)} (${tick.count})` : ""}`,
    tick.outcome,
    tick.reason,
    tick.runId ?? "-"
  ].join("  ")

/** Asks and shows what the schedule is like then. */
const ask = (call: ScheduleCall, { json, nodes }: { json: boolean; nodes: Option.Option<ReadonlyArray<string>> }) =>
  Effect.flatMap(Schedules, (schedules) => schedules.call(call)).pipe(
    Effect.flatMap((schedule) => show(schedule, json)),
    Effect.provide(Client.layer(nodes))
  )

const defining = {
  ...named,
  ...specOptions.flags,
  ...policyOptions.flags,
  task: Options.text("task").pipe(Options.withDescription("Task of the runs.")),
  queue: options.named("queue").pipe(Options.withDefault("default")),
  payload: Options.text("payload").pipe(
    Options.withPseudoName("JSON"),
    Options.withDescription("Payload of each run. Default: null."),
    Options.withDefault("null")
  ),
  priority: Options.integer("priority").pipe(
    Options.withSchema(Schema.Int.pipe(Schema.between(0, priorityMax))),
    Options.withDefault(defaultPriority)
  ),
  jitter: specOptions.durationMs("jitter").pipe(
    Options.withDescription("Runs start up to so much later, each schedule by its own share."),
    Options.optional
  ),
  maxFires: Options.integer("max-fires").pipe(
    Options.withDescription("Runs it makes before it ends."),
    Options.optional
  )
}

type Defining = { readonly [K in keyof typeof defining]: ParsedOf<(typeof defining)[K]> }
type ParsedOf<T> = T extends Options.Options<infer A> ? A : T extends Args.Args<infer A> ? A : never

const decodeDefinition = Schema.decodeUnknownEither(ScheduleDefinition.ScheduleDefinition)

/** Retry policy and time limit are the defaults: those of the task's definition are not known here. */
const definitionOf = (flags: Defining) =>
  Either.gen(function*() {
    const spec = yield* specOptions.specOf(flags)
    return yield* Either.mapLeft(
      decodeDefinition({
        namespace: flags.namespace,
        name: flags.name,
        spec: {
          ...spec,
          ...(Option.isSome(flags.jitter) ? { jitterMs: flags.jitter.value } : {}),
          ...(Option.isSome(flags.maxFires) ? { maxFires: flags.maxFires.value } : {})
        },
        policy: yield* policyOptions.policyOf(flags),
        run: {
          queue: flags.queue,
          task: flags.task,
          payload: flags.payload,
          priority: flags.priority,
          policy: ScheduleDefinition.defaultRunPolicy,
          keys: null
        },
        version: null
      }),
      refusalOf("schedule")
    )
  })

const create = Command.make(
  "create",
  defining,
  (flags) => Effect.flatMap(definitionOf(flags), (definition) => ask({ _tag: "create", definition }, flags))
).pipe(
  Command.withDescription("Makes a schedule. Refused when its name is taken.")
)

const update = Command.make("update", { ...defining, expected }, (flags) =>
  Effect.flatMap(
    definitionOf(flags),
    (definition) => ask({ _tag: "update", definition, ...guard(flags.expected) }, flags)
  )).pipe(Command.withDescription("Gives a schedule another definition, whole, from now on."))

const list = Command.make(
  "list",
  {
    ...common,
    namespace: options.named("namespace").pipe(Options.optional),
    after: Options.text("after").pipe(
      Options.withDescription("Ids after this: the last of the page before."),
      Options.optional
    ),
    limit
  },
  ({ after, json, limit, namespace, nodes }) =>
    Effect.gen(function*() {
      const schedules = yield* Schedules
      const found = yield* schedules.list({
        limit,
        ...(Option.isSome(namespace) ? { namespace: namespace.value } : {}),
        ...(Option.isSome(after) ? { after: after.value } : {})
      })
      yield* Effect.forEach(found, (schedule) => show(schedule, json), { discard: true })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("Schedules with their next fire, runs, misses and lateness."))

const get = Command.make("get", { ...named, limit }, (flags) =>
  Effect.gen(function*() {
    const schedules = yield* Schedules
    const schedule = yield* schedules.get(idOf(flags))
    const ticks = yield* schedules.ticks(idOf(flags), flags.limit)
    const now = yield* Clock.currentTimeMillis
    const fires = yield* NextFire.compile(schedule.definition.spec)
    const upcoming = ScheduleDefinition.upcoming(schedule, fires, flags.limit).filter(({ at }) => at > now)
    if (flags.json) return yield* Console.log(JSON.stringify({ ...schedule, upcoming, ticks }))
    yield* Console.log(lineOf(schedule))
    yield* Effect.forEach(
      upcoming,
      ({ at, isSkipped }) => Console.log(`next  ${iso(at)}${isSkipped ? "  skipped" : ""}`)
    )
    yield* Effect.forEach(ticks, (tick) => Console.log(`was   ${tickLine(tick)}`))
  }).pipe(Effect.provide(Client.layer(flags.nodes)))).pipe(
    Command.withDescription("One schedule: its next fires, and what became of the last ones.")
  )

const pause = Command.make("pause", {
  ...named,
  expected,
  by: Options.text("by").pipe(Options.withDescription("Who."), Options.withDefault("orrery schedules")),
  why: Options.text("why").pipe(Options.withDefault(""))
}, (flags) => ask({ _tag: "pause", id: idOf(flags), by: flags.by, why: flags.why, ...guard(flags.expected) }, flags))
  .pipe(
    Command.withDescription("Stops a schedule until it is resumed.")
  )

const resume = Command.make(
  "resume",
  { ...named, expected },
  (flags) => ask({ _tag: "resume", id: idOf(flags), ...guard(flags.expected) }, flags)
).pipe(
  Command.withDescription("Goes on. Ticks of the pause are recorded as skipped.")
)

const remove = Command.make(
  "delete",
  { ...named, expected },
  (flags) => ask({ _tag: "delete", id: idOf(flags), ...guard(flags.expected) }, flags)
).pipe(
  Command.withDescription("Deletes a schedule and what is known of its ticks. Its runs stay.")
)

const trigger = Command.make(
  "trigger",
  named,
  (flags) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (at) => ask({ _tag: "trigger", id: idOf(flags), requestId: randomUUID(), at }, flags)
    )
).pipe(
  Command.withDescription("Makes a run now, paused or not, beside whatever runs.")
)

const skipNext = Command.make("skip-next", {
  ...named,
  expected,
  count: Options.integer("count").pipe(Options.withDescription("How many; 0 takes it back."), Options.withDefault(1))
}, (flags) => ask({ _tag: "skipNext", id: idOf(flags), count: flags.count, ...guard(flags.expected) }, flags)).pipe(
  Command.withDescription("The next ticks make no run.")
)

const skipAt = Command.make(
  "skip-at",
  { ...named, expected, at: specOptions.instant("at") },
  (flags) => ask({ _tag: "skipAt", id: idOf(flags), nominal: flags.at, ...guard(flags.expected) }, flags)
).pipe(
  Command.withDescription("The tick of that instant makes no run.")
)

const backfill = Command.make("backfill", {
  ...named,
  expected,
  from: specOptions.instant("from"),
  until: specOptions.instant("until").pipe(Options.withDescription("Included, as --from is.")),
  order: Options.choice("order", ["oldest", "newest"] as const).pipe(Options.withDefault("oldest" as const)),
  perMinute: Options.integer("per-minute").pipe(
    Options.withSchema(Schema.Int.pipe(Schema.between(1, ScheduleMachine.backfillPerMinuteMax))),
    Options.withDefault(60)
  ),
  dryRun: Options.boolean("dry-run").pipe(Options.withDescription("Print what it would make runs for, and do nothing."))
}, (flags) => {
  const { expected, from, order, perMinute, until } = flags
  if (!flags.dryRun) {
    return ask({ _tag: "backfill", id: idOf(flags), from, until, order, perMinute, ...guard(expected) }, flags)
  }
  return Effect.gen(function*() {
    const { definition } = yield* Effect.flatMap(Schedules, (schedules) => schedules.get(idOf(flags)))
    const ticks = ScheduleMachine.backfillTicks(yield* NextFire.compile(definition.spec), from, until)
    yield* Effect.forEach(order === "oldest" ? ticks : [...ticks].reverse(), (at) => Console.log(iso(at)))
  }).pipe(Effect.provide(Client.layer(flags.nodes)))
}).pipe(Command.withDescription("Makes the runs of a range that have not been made, at a rate."))

export const commands = [
  ...[list, get, create, update, remove] as const,
  ...[pause, resume, trigger, skipNext, skipAt, backfill] as const
] as const
