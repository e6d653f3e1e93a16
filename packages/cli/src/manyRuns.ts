/** `orrery runs cancel-many`, `retry-many` and `delete-many`: what is done to all runs of a filter. */
import { Command, Options } from "@effect/cli"
import { cancelMany, openStates } from "@orrery/core/cancelMany"
import { deleteMany, type DeleteManyOptions, finalStates } from "@orrery/core/deleteMany"
import { retryMany } from "@orrery/core/retryMany"
import { Console, Effect, type Option } from "effect"
import * as Client from "./client.js"
import * as options from "./options.js"
import { instant } from "./scheduleSpecOptions.js"

const common = { nodes: options.nodes, json: options.json }
const filters = {
  namespace: options.named("namespace").pipe(Options.optional),
  queue: options.named("queue").pipe(Options.optional),
  task: options.named("task").pipe(Options.withDescription("Of all its versions."), Options.optional)
}
const dryRun = Options.boolean("dry-run").pipe(Options.withDescription("Only count, and show some ids."))
const limit = Options.integer("limit").pipe(
  Options.withDescription("At most so many. Default: 10000."),
  Options.withDefault(10_000)
)

const filterOf = ({ namespace, queue, task }: {
  readonly [K in "namespace" | "queue" | "task"]: Option.Option<string>
}) => ({
  ...options.given("namespace", namespace),
  ...options.given("queue", queue),
  ...options.given("task", task)
})

interface Report {
  readonly matched: number
  readonly isComplete: boolean
  readonly sample: ReadonlyArray<string>
}

interface Telling<R> {
  readonly dryRun: boolean
  readonly json: boolean
  /** Of a dry run: what none is. */
  readonly what: string
  readonly done: (report: R) => string
}

const tell = <R extends Report>(report: R, { done, dryRun, json, what }: Telling<R>) => {
  const { isComplete, matched, sample } = report
  const shown = [
    `${matched} runs${isComplete ? "" : " (and perhaps more)"}`,
    ...dryRun ? [`none ${what}, this is a dry run`, ...sample] : [done(report)]
  ]
  return Console.log(json ? JSON.stringify(report) : shown.join("\n"))
}

export const cancel = Command.make(
  "cancel-many",
  {
    ...common,
    ...filters,
    state: Options.choice("state", openStates).pipe(
      Options.withDescription("Left out: whatever is not final."),
      Options.optional
    ),
    dryRun,
    limit
  },
  ({ dryRun, json, limit, nodes, state, ...flags }) =>
    Effect.gen(function*() {
      const filter = { ...filterOf(flags), ...options.given("state", state) }
      yield* tell(yield* cancelMany({ filter, dryRun, limit }), {
        dryRun,
        json,
        what: "cancelled",
        done: ({ alreadyFinal, cancelled, requested }) =>
          `${cancelled} cancelled, ${requested} being interrupted, ${alreadyFinal} had ended`
      })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(
  Command.withDescription("Cancels all runs of a queue, task or namespace that are not final, each through its owner.")
)

export const retry = Command.make(
  "retry-many",
  { ...common, ...filters, dryRun, limit },
  ({ dryRun, json, limit, nodes, ...flags }) =>
    Effect.gen(function*() {
      yield* tell(yield* retryMany({ filter: filterOf(flags), dryRun, limit }), {
        dryRun,
        json,
        what: "changed",
        done: ({ gone, retried }) => `${retried} due now, ${gone} did not wait any more`
      })
    }).pipe(Effect.provide(Client.layer(nodes)))
).pipe(
  Command.withDescription(
    "Lets all runs of a queue, task or namespace that wait for their next attempt begin it now. "
      + "Those that have failed: `orrery dead-letters redrive`."
  )
)

/** Also of `orrery dead-letters delete`. */
export const deleteAndTell = (asked: DeleteManyOptions & { readonly dryRun: boolean }, json: boolean) =>
  Effect.flatMap(deleteMany(asked), (report) =>
    tell(report, {
      dryRun: asked.dryRun,
      json,
      what: "deleted",
      done: ({ deleted }) => `${deleted} deleted`
    }))

export const remove = Command.make(
  "delete-many",
  {
    ...common,
    ...filters,
    state: Options.choice("state", finalStates).pipe(
      Options.withDescription("Left out: whatever is final."),
      Options.optional
    ),
    since: instant("since").pipe(Options.withDescription("That ended then or later."), Options.optional),
    until: instant("until").pipe(Options.withDescription("That ended before then."), Options.optional),
    dryRun,
    limit
  },
  ({ dryRun, json, limit, nodes, since, state, until, ...flags }) =>
    Effect.provide(
      deleteAndTell({
        filter: {
          ...filterOf(flags),
          ...options.given("state", state),
          ...options.given("since", since),
          ...options.given("until", until)
        },
        dryRun,
        limit
      }, json),
      Client.layer(nodes)
    )
).pipe(
  Command.withDescription(
    "Deletes all runs of a queue, task or namespace that are final, for good, with their results, failures and logs."
  )
)
