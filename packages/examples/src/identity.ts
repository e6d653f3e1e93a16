/**
 * Which requests are one run, and what happens when a queue is full.
 *
 *   node --import tsx packages/examples/src/identity.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Orrery, Task } from "@orrery/orrery"
import { Console, Effect, Layer, Schema } from "effect"

const Order = Schema.Struct({ order: Schema.String, n: Schema.Number })

/** However often an order is sent, it is charged once a day. */
const charge = Task.make("charge", { payload: Order, queue: "money", idempotencyKey: ({ order }) => order })

/** Edits come in bursts: the page is built once they have stopped for a second, with the last of them. */
const build = Task.make("build", {
  payload: Order,
  queue: "pages",
  debounce: { key: ({ order }) => order, wait: 1_000 }
})

/** While one synchronisation runs, one more waits: with the newest payload. */
const sync = Task.make("sync", { payload: Order, queue: "sync", keepLast: { key: ({ order }) => order } })

/** At most 20 unfinished runs; who has more to do waits for room. */
const report = Task.make("report", { payload: Order, queue: "reports", maxDepth: 20 })

const done = new Map<string, Array<number>>()
const note = (task: string, n: number) => done.set(task, [...done.get(task) ?? [], n])
const handlers = Layer.mergeAll(
  charge.toLayer(({ n }) => Effect.sync(() => void note("charged", n))),
  build.toLayer(({ n }) => Effect.sync(() => void note("built", n))),
  sync.toLayer(({ n }) => Effect.zipRight(Effect.sync(() => note("synced", n)), Effect.sleep("1 second"))),
  report.toLayer(() => Effect.sleep("10 millis"))
)

const program = Effect.gen(function*() {
  const numbers = Array.from({ length: 10 }, (_, n) => n)
  const send = (task: typeof charge | typeof build | typeof sync) =>
    Effect.forEach(numbers, (n) => task.enqueueDetailed({ order: "A-1", n }))
  const [charges, builds] = yield* Effect.all([send(charge), send(build)])
  const first = yield* sync.enqueue({ order: "A-1", n: -1 })
  // Until it runs.
  yield* Effect.repeat(Effect.sleep("10 millis"), { until: () => done.has("synced") })
  const syncs = yield* send(sync)
  yield* Effect.forEach([charges[0]!.id, builds[0]!.id, first, syncs[9]!.id], charge.result, { concurrency: 4 })
  for (const [what, answers] of [["charge", charges], ["build", builds], ["sync", syncs]] as const) {
    const made = answers.filter(({ isNew }) => isNew).length
    yield* Console.log(`${what}: 10 requests, ${made} run, ${new Set(answers.map(({ id }) => id)).size} id`)
  }
  yield* Console.log(`done: ${[...done].map(([task, all]) => `${task} ${all.join(" ")}`).join(", ")}`)

  const many = Array.from({ length: 50 }, (_, n) => ({ order: "B", n }))
  const full = yield* Effect.flip(report.enqueueMany(many))
  yield* Console.log(`refused: ${full._tag}`)
  const ids = yield* report.enqueueMany(many, { whenFull: "wait", waitAtMost: "30 seconds" })
  yield* Effect.forEach(ids, report.result, { concurrency: 10 })
  yield* Console.log(`reported: ${ids.length}`)
})

NodeRuntime.runMain(Effect.provide(program, Orrery.layerMemory({ handlers })))
