/**
 * What a run tells while it runs: how far it is, log lines, and a checkpoint from which the next attempt goes on; and a watch
 * that follows it to its end.
 *
 *   node --import tsx packages/examples/src/progress.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, RetryPolicy, Task, Watch } from "@orrery/orrery"
import { Console, Effect, Either, Layer, Option, Schema, Stream } from "effect"

class PageUnreadable extends Schema.TaggedError<PageUnreadable>()("PageUnreadable", { page: Schema.Number }) {}

const importPages = Task.make("import-pages", {
  payload: Schema.Struct({ pages: Schema.Number }),
  success: Schema.Struct({ pages: Schema.Number, readByLastAttempt: Schema.Number }),
  error: PageUnreadable,
  progress: Schema.Struct({ page: Schema.Number, of: Schema.Number }),
  checkpoint: Schema.Struct({ nextPage: Schema.Number }),
  retry: RetryPolicy.fixed({ maxAttempts: 3, delay: "100 millis", jitter: 0 })
})

let isBroken = true

const handlers = importPages.toLayer(({ pages }, attempt) =>
  Effect.gen(function*() {
    const from = Option.match(attempt.checkpoint, { onNone: () => 1, onSome: ({ nextPage }) => nextPage })
    yield* attempt.log(`attempt ${attempt.attempt} begins with page ${from}`)
    for (let page = from; page <= pages; page++) {
      if (page === 4 && isBroken) {
        isBroken = false
        return yield* new PageUnreadable({ page })
      }
      yield* Effect.sleep("20 millis")
      yield* attempt.progress({ page, of: pages })
      yield* attempt.saveCheckpoint({ nextPage: page + 1 })
    }
    return { pages, readByLastAttempt: pages - from + 1 }
  })
)

const program = Effect.gen(function*() {
  const id = yield* importPages.enqueue({ pages: 6 })
  // The cursor of any item goes on from there, also in another process: Watch.task(importPages, id, { after: cursor }).
  yield* Watch.task(importPages, id).pipe(Stream.runForEach(({ change }) => {
    switch (change._tag) {
      case "state":
        return Console.log(`state: ${change.state}, attempt ${change.attempt}`)
      case "progress":
        return Console.log(`progress: page ${change.progress.page} of ${change.progress.of}`)
      case "log":
        return Console.log(change.lines.map(({ text }) => `log: ${text}`).join("\n"))
      case "gap":
        return Console.log("(some states in between were not seen)")
      case "end":
        return Console.log(`end: ${change.state} ${JSON.stringify(Either.getOrNull(change.result))}`)
    }
  }))
})

NodeRuntime.runMain(
  Effect.provide(program, Layer.provideMerge(Orrery.layerMemory({ handlers }), Orrery.layerOneProcess))
)
