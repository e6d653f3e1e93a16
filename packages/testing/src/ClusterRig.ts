/**
 * A real cluster under load, for tests and measurements: node and worker processes on a database of their own, twelve
 * queues, one producer each that waits for every answer. What was acknowledged is remembered here, and compared
 * with what the database holds in the end.
 */
import * as RunsClient from "@orrery/api/RunsClient"
import * as LocalCluster from "@orrery/cli/LocalCluster"
import type { Supervised } from "@orrery/cli/Supervisor"
import type { RunId } from "@orrery/core/RunId"
import type { Queues } from "@orrery/core/Queues"
import type { Runs } from "@orrery/core/Runs"
import type { Schedules } from "@orrery/core/schedule/Schedules"
import { type Context, Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { fileURLToPath } from "node:url"
import pg from "pg"
import { ticks } from "./rigTasks.js"

const handlers = fileURLToPath(new URL("./rigHandlers.ts", import.meta.url))
const producerPause = "15 millis"

export interface Verdict {
  readonly acknowledged: number
  /** Acknowledged, but without a final row. */
  readonly lost: number
  /** Run ids with more than one final row. */
  readonly doubled: number
  readonly failed: number
  /** Most attempts of one run. */
  readonly attemptsMax: number
}

export interface Rig {
  readonly cluster: LocalCluster.LocalCluster
  readonly client: Context.Context<Runs | Queues | Schedules>
  /** Starts the producers; they stop with the scope of the call. */
  readonly load: Effect.Effect<Load, never, Scope.Scope>
  readonly query: <Row>(text: string, values?: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<Row>>
  /** The supervised node that owns a queue's only partition now. */
  readonly ownerOf: (queue: string) => Effect.Effect<Supervised>
}

export interface Load {
  readonly acknowledged: ReadonlySet<RunId>
  /** Longest time between two answers of any queue, since the last call, ms. */
  readonly longestGap: () => number
  /** Completes when every queue has been answered again from now on. */
  readonly allServed: Effect.Effect<void>
  /** Stops the producers, waits for the end of every acknowledged run, and looks. */
  readonly settle: Effect.Effect<Verdict>
}

/** Every answer must be there by then, or the test is over anyway. */
const patience = "60 seconds"
const pollEvery = "25 millis"

/** The value once it holds. Dies when it does not in a minute, with the last one seen. */
export const eventually = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  holds: (value: A) => boolean
): Effect.Effect<A, never, R> =>
  Effect.suspend(() => {
    let last: A | undefined
    return effect.pipe(
      Effect.tap((value) => {
        last = value
        return holds(value) ? Effect.void : Effect.sleep(pollEvery)
      }),
      Effect.repeat({ until: holds }),
      Effect.timeoutFail({
        duration: patience,
        onTimeout: () => new Error(`not in ${patience}, last seen: ${JSON.stringify(last)}`)
      }),
      Effect.orDie
    )
  })

/**
 * Ends processes without a farewell, all of them at once: to hand over to nobody takes seconds, and how a node drains has tests of
 * its own.
 */
export const killAll = (processes: ReadonlyArray<Supervised>): Effect.Effect<void> =>
  Effect.forEach(processes, (each) => Effect.all([each.stop, each.kill("SIGKILL")], { concurrency: 2 }), {
    concurrency: "unbounded",
    discard: true
  })

/** `killAll` when the scope closes. */
export const endAtOnce = ({ all }: LocalCluster.LocalCluster): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() => killAll(all))

export const start = (options: {
  readonly databaseUrl: Redacted.Redacted<string>
  readonly nodes?: number
  readonly workers?: number
  /** Of the worker in each node. Default 4. */
  readonly workerSlots?: number
  /** Of each worker process. Default 20. */
  readonly slots?: number
  readonly env?: Readonly<Record<string, string>>
  readonly onLine?: (name: string, line: string) => void
}): Effect.Effect<Rig, never, Scope.Scope> =>
  Effect.gen(function*() {
    const cluster = yield* LocalCluster.start({
      databaseUrl: options.databaseUrl,
      nodes: options.nodes ?? 3,
      workers: options.workers ?? 1,
      workerSlots: options.workerSlots ?? 4,
      slots: options.slots ?? 20,
      handlers,
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.onLine === undefined ? {} : { onLine: options.onLine })
    })
    yield* endAtOnce(cluster)
    yield* Effect.forEach(cluster.all, (child) =>
      child.ended.pipe(
        Effect.flatMap((ended) => ended.reason === "stopped" ? Effect.void : Effect.logError(ended.message)),
        Effect.forkScoped
      ))
    const client = yield* Layer.build(RunsClient.layer({ nodes: cluster.addresses }))
    const pool = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const each = new pg.Pool({ connectionString: Redacted.value(options.databaseUrl), max: 2 })
        each.on("error", () => undefined)
        return each
      }),
      (each) => Effect.promise(() => each.end())
    )
    const query: Rig["query"] = <Row>(text: string, values: ReadonlyArray<unknown> = []) =>
      Effect.tryPromise(() => pool.query(text, [...values])).pipe(
        Effect.map((result) => result.rows as ReadonlyArray<Row>),
        // The database may be down for a moment: that is what some tests are about.
        Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo(patience))),
        Effect.orDie
      )
    const ownerOf = (queue: string) =>
      Effect.gen(function*() {
        const rows = yield* eventually(
          query<{ owner: string }>("select owner from orrery.partitions where queue = $1", [queue]),
          (found) => found.length > 0
        )
        const ids = yield* Effect.forEach(cluster.nodes, (node) => Effect.map(node.lastReady, (ready) => ready?.nodeId))
        const at = ids.indexOf(rows[0]!.owner)
        return at < 0
          ? yield* Effect.dieMessage(`owner ${rows[0]!.owner} of ${queue} is not a node`)
          : cluster.nodes[at]!
      })
    return { cluster, client, query, ownerOf, load: startLoad(client, query) }
  }).pipe(Effect.orDie)

const startLoad = (client: Context.Context<Runs>, query: Rig["query"]): Rig["load"] =>
  Effect.gen(function*() {
    const acknowledged = new Set<RunId>()
    const lastAnswer = ticks.map(() => performance.now())
    const answers = ticks.map(() => 0)
    let gap = 0
    let stopped = false
    const produce = (at: number) =>
      Effect.gen(function*() {
        const id = yield* ticks[at]!.enqueue({ n: acknowledged.size })
        acknowledged.add(id)
        const now = performance.now()
        gap = Math.max(gap, now - lastAnswer[at]!)
        lastAnswer[at] = now
        answers[at]! += 1
      }).pipe(
        Effect.catchAll((error) => Effect.logWarning(`producer ${at}: ${error.message}`)),
        Effect.zipRight(Effect.sleep(producerPause)),
        Effect.repeat({ until: () => stopped }),
        Effect.provide(client)
      )
    const producers = yield* Effect.forEach(ticks, (_, at) => Effect.forkScoped(produce(at)))
    const allServed = Effect.suspend(() => {
      const before = [...answers]
      return eventually(Effect.sync(() => answers.every((count, at) => count > before[at]! + 1)), (all) => all)
    })
    return {
      acknowledged,
      allServed: Effect.asVoid(allServed),
      longestGap: () => {
        const longest = Math.max(gap, ...lastAnswer.map((at) => performance.now() - at))
        gap = 0
        return longest
      },
      settle: Effect.gen(function*() {
        stopped = true
        yield* Effect.forEach(producers, (fiber) => fiber.await, { concurrency: "unbounded" })
        const ids = [...acknowledged]
        const lostOf = query<{ lost: string }>(
          `select count(*) as lost from unnest($1::uuid[]) as acked(id)
           where not exists (select 1 from orrery.run_history h where h.id = acked.id)`,
          [ids]
        )
        yield* Effect.timeoutOption(eventually(lostOf, (rows) => rows[0]!.lost === "0"), "30 seconds")
        const lost = Number((yield* lostOf)[0]!.lost)
        const [rest] = yield* query<{ doubled: string; failed: string; attempts: number | null }>(
          `select (select count(*) from (select 1 from orrery.run_history group by id having count(*) > 1) twice) as doubled,
             (select count(*) from orrery.run_history where state <> 5) as failed,
             (select max(attempt) from orrery.run_history) as attempts`
        )
        return {
          acknowledged: ids.length,
          lost,
          doubled: Number(rest!.doubled),
          failed: Number(rest!.failed),
          attemptsMax: rest!.attempts ?? 0
        }
      })
    }
  })
