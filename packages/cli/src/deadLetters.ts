/** `orrery dead-letters`: what runs died of, and making them anew. */
import { Args, Command, Options } from "@effect/cli"
import * as DeadLetters from "@orrery/core/DeadLetters"
import type { Run } from "@orrery/core/Run"
import { RunId } from "@orrery/core/RunId"
import { Runs } from "@orrery/core/Runs"
import { Console, Data, Effect, Option, Schema, Stream } from "effect"
import * as Client from "./client.js"
import { deleteAndTell } from "./manyRuns.js"
import * as options from "./options.js"

/** A redrive that stopped by itself, for what it saw. */
class Stopped extends Data.TaggedError("Stopped")<{ readonly report: DeadLetters.RedriveReport }> {
  override get message() {
    const { failed, redriven, stopped, succeeded } = this.report
    return `stopped after ${redriven} runs, ${stopped}: ${failed} failed, ${succeeded} succeeded`
  }
}

const common = { nodes: options.nodes, json: options.json }
const text = (name: string, description: string) =>
  Options.text(name).pipe(Options.withDescription(description), Options.optional)
const name = (field: string, description: string) =>
  options.named(field).pipe(Options.withDescription(description), Options.optional)
const instant = (name: string, description: string) =>
  Options.text(name).pipe(
    Options.withSchema(Schema.DateFromString.pipe(Schema.validDate())),
    Options.withPseudoName("TIME"),
    Options.withDescription(description),
    Options.optional
  )
const filters = {
  namespace: name("namespace", "Of this namespace only."),
  queue: name("queue", "Of this queue only."),
  task: name("task", "Of this task only, in any version."),
  tag: text("tag", "Whose failure has this tag."),
  fingerprint: text("fingerprint", "Whose failure has this fingerprint (see `groups`)."),
  state: Options.choice("state", ["failed", "expired"] as const).pipe(Options.withDefault("failed" as const)),
  since: instant("since", "That ended then or later, ISO 8601."),
  until: instant("until", "That ended before then.")
}

type Flags =
  & {
    readonly [K in "namespace" | "queue" | "task" | "tag" | "fingerprint"]: Option.Option<string>
  }
  & {
    readonly state: "failed" | "expired"
    readonly since: Option.Option<Date>
    readonly until: Option.Option<Date>
  }

const filterOf = ({ fingerprint, namespace, queue, since, state, tag, task, until }: Flags) => {
  const given = Object.entries({
    namespace,
    queue,
    task,
    tag,
    fingerprint,
    since: Option.map(since, (date) => date.getTime()),
    until: Option.map(until, (date) => date.getTime())
  }).flatMap(([key, value]) => Option.isSome<string | number>(value) ? [[key, value.value] as const] : [])
  return { state, ...Object.fromEntries(given) } as DeadLetters.DeadLetterFilter
}

const whole = (name: string, max: number, byDefault: number, description: string) =>
  Options.integer(name).pipe(
    Options.withSchema(Schema.Int.pipe(Schema.between(0, max))),
    Options.withDescription(`${description} Default: ${byDefault}.`),
    Options.withDefault(byDefault)
  )

const lineOf = ({ attempt, failure, finishedAt, id, origin, queue, task }: Run): string =>
  [
    id,
    finishedAt === null ? "-" : new Date(finishedAt).toISOString(),
    `${attempt}`.padStart(2),
    failure?.fingerprint ?? "-",
    `${queue}/${task}`,
    failure === null ? "" : `${failure.tag}: ${failure.message.split("\n")[0]!.slice(0, 100)}`,
    ...origin === undefined ? [] : [`(redrive of ${origin})`]
  ].join("  ")

const list = Command.make(
  "list",
  { ...common, ...filters, limit: whole("limit", 100_000, 20, "At most so many.") },
  ({ json, limit, nodes, ...flags }) =>
    Stream.runForEach(
      Stream.take(DeadLetters.stream(filterOf(flags)), limit),
      (run) => Console.log(json ? JSON.stringify(run) : lineOf(run))
    ).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("Newest first: id, end, attempts, fingerprint, task, failure."))

const groups = Command.make(
  "groups",
  { ...common, ...filters, limit: whole("limit", 100_000, 10_000, "Of the newest so many.") },
  ({ json, limit, nodes, ...flags }) =>
    Effect.gen(function*() {
      const found = yield* DeadLetters.groups(filterOf(flags), limit)
      for (const group of found) {
        const { count, fingerprint, message, tag, task } = group
        const line = [`${count}`.padStart(6), fingerprint, task, `${tag}: ${message.split("\n")[0]!.slice(0, 100)}`]
        yield* Console.log(json ? JSON.stringify(group) : line.join("  "))
      }
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("What they died of: count, fingerprint, task, newest failure."))

const redrive = Command.make(
  "redrive",
  {
    ...common,
    ...filters,
    ids: Args.text({ name: "id" }).pipe(
      Args.withSchema(RunId),
      Args.withDescription("These, whatever the filter says. Without any: all that fit the filter."),
      Args.repeated
    ),
    dryRun: Options.boolean("dry-run").pipe(Options.withDescription("Only count.")),
    limit: whole("limit", 1_000_000, 10_000, "At most so many."),
    rate: Options.float("rate").pipe(Options.withDescription("Runs a second. Default: 50."), Options.withDefault(50)),
    canary: whole("canary", 1_000, 0, "So many first; the others when these are final, and have not failed."),
    failureRatio: Options.float("failure-ratio").pipe(
      Options.withDescription("Stop when more than this share of the new runs fail. 1: never. Default: 0.5."),
      Options.withDefault(0.5)
    )
  },
  ({ canary, dryRun, failureRatio, ids, json, limit, nodes, rate, ...flags }) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      for (const id of ids) {
        const made = yield* runs.redrive(id)
        yield* Console.log(
          json ? JSON.stringify({ origin: id, ...made }) : `${made.id}${made.isNew ? "" : "  already"}`
        )
      }
      if (ids.length > 0) return
      const report = yield* DeadLetters.redrive({
        filter: filterOf(flags),
        dryRun,
        limit,
        perSecond: rate,
        canary,
        failureRatioMax: failureRatio
      })
      const text = Object.entries(report).map(([name, value]) => `${name.padEnd(10)} ${value ?? "-"}`).join("\n")
      yield* Console.log(json ? JSON.stringify(report) : text)
      if (report.stopped !== null && report.stopped !== "limit") return yield* new Stopped({ report })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(
  Command.withDescription(
    "Make them anew, as runs of their own that name their origin. Asked again it makes none twice. "
      + "Code 1 when it stopped because the new runs fail."
  )
)

const remove = Command.make(
  "delete",
  {
    ...common,
    ...filters,
    dryRun: Options.boolean("dry-run").pipe(Options.withDescription("Only count, and show some ids.")),
    limit: whole("limit", 1_000_000, 10_000, "At most so many.")
  },
  ({ dryRun, json, limit, nodes, ...flags }) =>
    Effect.provide(deleteAndTell({ filter: filterOf(flags), dryRun, limit }, json), Client.layer(nodes))
).pipe(
  Command.withDescription("Delete them for good. At least one of --namespace, --queue and --task must be given.")
)

export const command = Command.make("dead-letters").pipe(
  Command.withDescription("Runs that failed or expired: list them, group them by cause, make them anew, delete them."),
  Command.withSubcommands([list, groups, redrive, remove])
)
