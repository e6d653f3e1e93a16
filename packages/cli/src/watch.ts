/** `orrery runs watch` and `orrery queues watch`. */
import { Args, Command, Options } from "@effect/cli"
import { RunId } from "@orrery/core/RunId"
import * as Watch from "@orrery/core/Watch"
import { Console, Data, Effect, Option, Stream } from "effect"
import * as Client from "./client.js"
import * as options from "./options.js"

class NotSucceeded extends Data.TaggedError("NotSucceeded")<{ readonly id: RunId; readonly state: string }> {
  override get message() {
    return `run ${this.id} ${this.state}`
  }
}

const time = (ms: number): string => new Date(ms).toISOString()
const progressOf = (text: string): string => /^[\d.]+$/.test(text) ? `${text} %` : text

const runLines = (change: Watch.RunChange): ReadonlyArray<string> => {
  switch (change._tag) {
    case "gap":
      return ["… (it has moved more than once)"]
    case "state":
      return [`${change.state}  attempt ${change.attempt}`]
    case "progress":
      return [`progress  ${progressOf(change.progress)}`]
    case "log":
      return [
        ...change.missed > 0 ? [`… ${change.missed} earlier lines`] : [],
        ...change.lines.map(({ at, attempt, text }) => `${time(at)} #${attempt} ${text}`)
      ]
    case "end": {
      const { failure, result, state } = change.run
      return [`${state}  ${failure === null ? result ?? "" : `${failure.kind} ${failure.tag}: ${failure.message}`}`]
    }
  }
}

const queueLines = (change: Watch.QueueChange): ReadonlyArray<string> => {
  switch (change._tag) {
    // Of no use to people: what matters of what is missing, the ends, is told.
    case "gap":
      return []
    case "progress":
      return change.progress === null ? [] : [`${change.id}  progress  ${progressOf(change.progress)}`]
    case "state":
    case "end":
      return [`${change.id}  ${change.state}`]
  }
}

const print = <A>(json: boolean, linesOf: (change: A) => ReadonlyArray<string>) => (item: Watch.Watched<A>) =>
  json
    ? Console.log(JSON.stringify({ ...item.change, cursor: item.cursor }))
    : Effect.forEach(linesOf(item.change), (line) => Console.log(line), { discard: true })

const common = {
  nodes: options.nodes,
  json: options.json,
  after: Options.text("after").pipe(
    Options.withPseudoName("CURSOR"),
    Options.withDescription("Go on after this cursor of an earlier watch, which --json prints."),
    Options.withDefault("")
  )
}

/** Of `orrery runs`. */
export const ofRun = Command.make("watch", {
  ...common,
  id: Args.text({ name: "id" }).pipe(Args.withSchema(RunId), Args.withDescription("Id of the run."))
}, ({ after, id, json, nodes }) =>
  Effect.gen(function*() {
    const last = yield* Watch.run(id, { after }).pipe(Stream.tap(print(json, runLines)), Stream.runLast)
    const change = Option.getOrUndefined(last)?.change
    if (change?._tag === "end" && change.run.state !== "succeeded") {
      return yield* new NotSucceeded({ id, state: change.run.state })
    }
  }).pipe(Effect.provide(Client.layer(nodes)))).pipe(
    Command.withDescription(
      "Prints states, progress and log lines as they come, until the end; code 1 when the run did not succeed."
    )
  )

/** Of `orrery queues`. */
export const ofQueue = Command.make(
  "watch",
  {
    ...common,
    queue: options.namedArg("QUEUE"),
    namespace: options.named("namespace").pipe(Options.withDefault("default"))
  },
  ({ after, json, namespace, nodes, queue }) =>
    Stream.runForEach(Watch.queue({ namespace, queue }, { after }), print(json, queueLines)).pipe(
      Effect.provide(Client.layer(nodes))
    )
).pipe(Command.withDescription("Prints what happens to the runs of a queue, until it is interrupted."))
