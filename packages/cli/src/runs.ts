/** `orrery runs`: looks at runs, changes and ends them, waits for them. */
import { Args, Command, Options } from "@effect/cli"
import type { Run } from "@orrery/core/Run"
import { RunId } from "@orrery/core/RunId"
import type { RunProgress } from "@orrery/core/RunNotes"
import { RunState } from "@orrery/core/RunState"
import { listLimitMax, Runs } from "@orrery/core/Runs"
import { versioned } from "@orrery/core/TaskName"
import { Console, Data, Duration, Effect, Option, Schema } from "effect"
import * as Client from "./client.js"
import { exitCode } from "./ExitCode.js"
import * as editRun from "./editRun.js"
import { explanationText } from "./explanationText.js"
import * as manyRuns from "./manyRuns.js"
import * as options from "./options.js"
import * as watch from "./watch.js"

const limitDefault = 20

class NotSucceeded extends Data.TaggedError("NotSucceeded")<{ readonly run: Run }> {
  override get message() {
    return `run ${this.run.id} ${this.run.state}${
      this.run.failure === null ? "" : `: ${this.run.failure.tag} ${this.run.failure.message}`
    }`
  }
}

class NotYetFinal extends Data.TaggedError("NotYetFinal")<{ readonly id: RunId; readonly waitedMs: number }> {
  readonly exitCode = exitCode.unavailable
  override get message() {
    return `run ${this.id} was not final after ${this.waitedMs} ms`
  }
}

const id = Args.text({ name: "id" }).pipe(Args.withSchema(RunId), Args.withDescription("Id of the run."))
const common = { nodes: options.nodes, json: options.json }

const time = (ms: number | null): string => ms === null ? "-" : new Date(ms).toISOString()

/** Payload, result and error are JSON text inside; a reader of JSON gets them as values. */
const asJson = (run: Run, told: RunProgress | null = null): string =>
  JSON.stringify({
    ...run,
    payload: valueOf(run.payload),
    result: run.result === null ? null : valueOf(run.result),
    ...told === null ? {} : {
      progress: told.progress === null ? null : valueOf(told.progress),
      lines: told.lines,
      lineCount: told.lineCount
    }
  })

const valueOf = (text: string): unknown => Option.getOrElse(Schema.decodeOption(Schema.parseJson())(text), () => text)

const lineOf = (run: Run): string =>
  [
    run.id,
    run.state.padEnd(9),
    `${run.attempt}`.padStart(2),
    time(run.createdAt),
    run.queue,
    versioned(run.task, run.version),
    ...(run.waitsFor === null ? [] : [`(${run.waitsFor})`])
  ].join("  ")

const stateOf = (run: Run): string => run.waitsFor === null ? run.state : `${run.state} (${run.waitsFor})`

/** Log lines shown of a run. `--json` shows all that are kept. */
const linesShown = 20

const logOf = ({ lineCount, lines }: RunProgress): ReadonlyArray<string> => {
  const shown = lines.slice(-linesShown)
  const before = lineCount - shown.length
  return [
    ...before > 0 ? [`… ${before} earlier lines`] : [],
    ...shown.map(({ at, attempt, text }) => `${time(at)} #${attempt} ${text}`)
  ]
}

const toldOf = (told: RunProgress): ReadonlyArray<string> => [
  ...told.progress === null ? [] : [`progress   ${progressOf(told.progress)} (${time(told.updatedAt)})`],
  ...logOf(told).map((line) => `log        ${line}`)
]

const progressOf = (text: string): string => /^[\d.]+$/.test(text) ? `${text} %` : text

const detailsOf = (run: Run, told: RunProgress | null = null): string =>
  [
    ...fieldsOf(run),
    ...told === null ? [] : toldOf(told)
  ].join("\n")

const fieldsOf = (run: Run): ReadonlyArray<string> =>
  Object.entries({
    id: run.id,
    task: versioned(run.task, run.version),
    queue: `${run.namespace}/${run.queue}`,
    state: stateOf(run),
    attempt: run.attempt,
    priority: run.priority,
    created: time(run.createdAt),
    scheduled: time(run.scheduledAt),
    started: time(run.startedAt),
    finished: time(run.finishedAt),
    worker: run.worker ?? "-",
    ...run.origin === undefined ? {} : { origin: run.origin },
    payload: run.payload,
    result: run.result ?? "-",
    failure: run.failure === null ? "-" : `${run.failure.kind} ${run.failure.tag}: ${run.failure.message}`
  }).map(([name, value]) => `${name.padEnd(10)} ${value}`)

const show = (run: Run, json: boolean, told: RunProgress | null = null) =>
  Console.log(json ? asJson(run, told) : detailsOf(run, told))

const list = Command.make(
  "list",
  {
    ...common,
    queue: options.named("queue").pipe(Options.optional),
    task: options.named("task").pipe(Options.optional),
    state: Options.choice("state", RunState.literals).pipe(Options.optional),
    before: Options.text("before").pipe(
      Options.withPseudoName("ID"),
      Options.withSchema(RunId),
      Options.withDescription("Only runs with a lower id: the last id of the page before."),
      Options.optional
    ),
    limit: Options.integer("limit").pipe(
      Options.withSchema(Schema.Int.pipe(Schema.between(1, listLimitMax))),
      Options.withDescription(`1 to ${listLimitMax}. Default: ${limitDefault}.`),
      Options.withDefault(limitDefault)
    )
  },
  ({ before, json, limit, nodes, queue, state, task }) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const found = yield* runs.list({
        limit,
        ...options.given("queue", queue),
        ...options.given("task", task),
        ...options.given("state", state),
        ...options.given("before", before)
      })
      yield* Effect.forEach(found, (run) => Console.log(json ? asJson(run) : lineOf(run)), { discard: true })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("Newest first: id, state, attempts, time of creation, queue, task."))

const get = Command.make("get", { ...common, id }, ({ id, json, nodes }) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    const run = yield* runs.get(id)
    // A node of an earlier release cannot tell.
    const told = yield* Effect.orElseSucceed(runs.progress(id), () => null)
    yield* show(run, json, told)
  }).pipe(Effect.provide(Client.layer(nodes)))).pipe(
    Command.withDescription("Everything about one run, with its progress and newest log lines.")
  )

const explain = Command.make("explain", { ...common, id }, ({ id, json, nodes }) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    const explanation = yield* runs.explain(id)
    yield* Console.log(json ? JSON.stringify(explanation) : explanationText(explanation))
  }).pipe(Effect.provide(Client.layer(nodes)))).pipe(
    Command.withDescription(
      "Why a run is where it is: what it waits for, its place in line and when it may start, and where its time went."
    )
  )

const cancel = Command.make("cancel", { ...common, id }, ({ id, json, nodes }) =>
  Effect.gen(function*() {
    const runs = yield* Runs
    const answer = yield* runs.cancel(id)
    yield* Console.log(json ? JSON.stringify({ id, answer }) : answer)
  }).pipe(Effect.provide(Client.layer(nodes)))).pipe(
    Command.withDescription(
      "Prints what happened: cancelled (it was waiting), requested (it is being interrupted), already-final."
    )
  )

const awaitCommand = Command.make(
  "await",
  {
    ...common,
    id,
    timeout: Options.integer("timeout").pipe(
      Options.withPseudoName("MS"),
      Options.withDescription(
        "Give up after this many milliseconds, with code 69. Left out: waits as long as it takes."
      ),
      Options.optional
    )
  },
  ({ id, json, nodes, timeout }) =>
    Effect.gen(function*() {
      const runs = yield* Runs
      const final = Option.isNone(timeout)
        ? runs.awaitFinal(id)
        : Effect.timeoutFail(runs.awaitFinal(id), {
          duration: Duration.millis(timeout.value),
          onTimeout: () => new NotYetFinal({ id, waitedMs: timeout.value })
        })
      const run = yield* final
      yield* show(run, json)
      if (run.state !== "succeeded") return yield* new NotSucceeded({ run })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(Command.withDescription("Wait until the run is final and show it. Code 1 when it did not succeed."))

export const command = Command.make("runs").pipe(
  Command.withDescription("Look at runs and why they wait, follow them, edit, cancel and delete them, wait for them."),
  Command.withSubcommands([
    list,
    get,
    explain,
    editRun.command,
    cancel,
    manyRuns.cancel,
    manyRuns.retry,
    manyRuns.remove,
    awaitCommand,
    watch.ofRun
  ])
)
