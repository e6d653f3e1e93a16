/**
 * `Runs`, `Queues` and `Schedules` for applications outside the cluster: over a connection to any of its nodes.
 *
 * Every call is repeated on another node when its connection breaks, until `budget` ends with `ClusterUnavailable`:
 * all of them are idempotent. `awaitFinal` is a row of long polls and goes on as long as nodes answer.
 */
import { ClusterUnavailable, type RunNotFound } from "@orrery/core/Errors"
import * as LimitKeeper from "@orrery/core/LimitKeeper"
import type { Run } from "@orrery/core/Run"
import type { RunId } from "@orrery/core/RunId"
import { payloadBytesMaxDefault } from "@orrery/core/RunRequest"
import { Queues } from "@orrery/core/Queues"
import { editProblem } from "@orrery/core/RunEdit"
import { idsProblem } from "@orrery/core/RunHistory"
import { Runs } from "@orrery/core/Runs"
import { Schedules } from "@orrery/core/schedule/Schedules"
import { Context, Duration, Effect, Layer, Schedule } from "effect"
import * as EnqueueBatcher from "./EnqueueBatcher.js"
import { enqueue } from "./FrameCalls.js"
import { encodeRequests, UnknownFrameVersion } from "./Frames.js"
import * as LiveNode from "./LiveNode.js"
import type { Client, NodeConnection } from "./NodeConnection.js"
import { awaitMsMax } from "./NodeRpcs.js"
import * as Nudges from "./Nudges.js"
import * as RemoteLimits from "./RemoteLimits.js"
import { queuesOf } from "./queuesOf.js"
import { schedulesOf } from "./schedulesOf.js"

export interface RunsClientOptions {
  /** Some nodes of the cluster, `host:port`; the others are learned. */
  readonly nodes: ReadonlyArray<string>
  /** Time limit of a single attempt of a call. Default 10 s. */
  readonly callTimeout?: Duration.DurationInput
  /** How long a call is tried again while no node can answer it. Default 30 s. */
  readonly budget?: Duration.DurationInput
  /** One long poll of `awaitFinal`, at most 20 s, the default. */
  readonly awaitPoll?: Duration.DurationInput
  /** Rows of one enqueue batch. Default 1,000. */
  readonly batchRowsMax?: number
  /** Characters of payload in one enqueue batch. Default 1 Mi: more delays the other calls of the connection. */
  readonly batchCharsMax?: number
  /** Enqueue batches of one queue under way at once, the second and further ones only when full. Default 4. */
  readonly batchesInFlightMax?: number
  /** Rows waiting to be sent; above it `enqueueMany` fails with `Overloaded`. Default 50,000. */
  readonly pendingRowsMax?: number
  /** Characters of payload waiting to be sent; as `pendingRowsMax`. Default 64 Mi. */
  readonly pendingCharsMax?: number
  /** Largest payload, bytes; must be what the cluster accepts. Default 256 KiB. */
  readonly payloadBytesMax?: number
}

/** Pause before a failed call is tried again. */
export const retrySchedule = Schedule.exponential("20 millis", 2).pipe(
  Schedule.union(Schedule.spaced("500 millis")),
  Schedule.jittered
)
/** How much longer than the wait the answer to a long poll may take. */
const pollGrace = Duration.seconds(5)
/** A long poll that was lost with its connection after this time, ms, had a live node until then. */
const pollAliveMs = 2_500

const make = (options: RunsClientOptions) =>
  Effect.gen(function*() {
    const callTimeout = Duration.decode(options.callTimeout ?? "10 seconds")
    const live = yield* LiveNode.make(options.nodes, callTimeout)
    yield* LimitKeeper.keptBy(RemoteLimits.make(live))
    const budget = Duration.decode(options.budget ?? "30 seconds")
    const awaitPoll = Duration.min(Duration.decode(options.awaitPoll ?? awaitMsMax), Duration.millis(awaitMsMax))
    const once = attempt(live, callTimeout)
    const ask = <A, E>(operation: string, use: (client: Client) => Effect.Effect<A, E>, timeout = callTimeout) =>
      withinBudget(once(operation, (connection) => connection.call(operation, use, timeout)), budget)

    const send: EnqueueBatcher.Send = (requests) =>
      once("enqueue", (connection) => connection.request(enqueue, [encodeRequests(requests)], callTimeout)).pipe(
        // A node of another release: a rolling deploy is under way, another node may do.
        Effect.catchIf((error): error is UnknownFrameVersion => error instanceof UnknownFrameVersion, (error) =>
          new ClusterUnavailable({ operation: "enqueue", reason: error.message }))
      )
    const payloadBytesMax = options.payloadBytesMax ?? payloadBytesMaxDefault
    const enqueueMany = yield* EnqueueBatcher.make({
      batchRowsMax: options.batchRowsMax ?? 1_000,
      batchCharsMax: options.batchCharsMax ?? 1024 * 1024,
      batchesInFlightMax: options.batchesInFlightMax ?? 4,
      pendingRowsMax: options.pendingRowsMax ?? 50_000,
      pendingCharsMax: options.pendingCharsMax ?? 64 * 1024 * 1024,
      payloadBytesMax,
      budgetMs: Duration.toMillis(budget)
    }, send)

    const awaitFinal: Runs["Type"]["awaitFinal"] = (id) =>
      Effect.flatMap(poll(once, id, awaitPoll, budget), (run) =>
        run === null ? awaitFinal(id) : Effect.succeed(run))

    const runs = Runs.of({
      enqueueMany,
      get: (id) => ask("get", (client) => client.Get({ id })),
      list: (filter) => ask("list", (client) => client.List({ filter })),
      awaitFinal,
      changes: (id, after, waitMs) => {
        const wait = waitWithin(waitMs)
        return ask("watch", (client) => client.RunChanges({ id, after, waitMs: wait }), pollTimeout(wait))
      },
      queueChanges: ({ namespace, queue }, after, waitMs) => {
        const wait = waitWithin(waitMs)
        const use = (client: Client) => client.QueueChanges({ namespace, queue, after, waitMs: wait })
        return ask("watch", use, pollTimeout(wait))
      },
      progress: (id) => ask("progress", (client) => client.Progress({ id })),
      explain: (id) => ask("explain", (client) => client.Explain({ id })),
      edit: (id, edit) =>
        refusedFor(() => editProblem(edit, payloadBytesMax), ask("edit", (client) => client.Edit({ id, edit }))),
      deleteFinal: (ids) => refusedFor(() => idsProblem(ids), ask("delete", (client) => client.DeleteFinal({ ids }))),
      redrive: (id, payload) =>
        ask("redrive", (client) => client.Redrive({ id, ...payload === undefined ? {} : { payload } })),
      cancel: (id) => ask("cancel", (client) => client.Cancel({ id })),
      nudge: yield* Nudges.make((use) => once("nudge", use))
    })
    return Context.make(Runs, runs).pipe(Context.add(Schedules, schedulesOf(ask)), Context.add(Queues, queuesOf(ask)))
  })

/** What is out of bounds does not fit the wire either: there it would be a defect. */
const refusedFor = <P, A, E>(problem: () => P | undefined, call: Effect.Effect<A, E>): Effect.Effect<A, E | P> =>
  Effect.suspend((): Effect.Effect<A, E | P> => {
    const found = problem()
    return found === undefined ? call : Effect.fail(found)
  })

const waitWithin = (waitMs: number): number => Math.floor(Math.max(0, Math.min(waitMs, awaitMsMax)))
const pollTimeout = (waitMs: number): Duration.Duration => Duration.sum(Duration.millis(waitMs), pollGrace)

/** One long poll, again while nodes are lost. The budget counts the time in which there was none to wait at. */
const poll = (
  once: ReturnType<typeof attempt>,
  id: RunId,
  wait: Duration.Duration,
  budget: Duration.Duration
): Effect.Effect<Run | null, RunNotFound | ClusterUnavailable> =>
  Effect.suspend(() => {
    const timeout = Duration.sum(wait, pollGrace)
    let failingSince: number | undefined
    const use = (connection: NodeConnection) => {
      const began = performance.now()
      const ask = (client: Client) => client.AwaitFinal({ id, waitMs: Duration.toMillis(wait) })
      return connection.call("awaitFinal", ask, timeout).pipe(
        Effect.tapError(() =>
          Effect.sync(() => {
            if (!connection.isOpen() && performance.now() - began > pollAliveMs) failingSince = undefined
          })
        )
      )
    }
    const mayRetry = (error: unknown): boolean => {
      failingSince ??= performance.now()
      return isUnavailable(error) && performance.now() - failingSince < Duration.toMillis(budget)
    }
    return Effect.retry(once("awaitFinal", use), { schedule: retrySchedule, while: mayRetry })
  })

/** One call on the node of the moment. */
const attempt = (live: LiveNode.LiveNode, connectTimeout: Duration.Duration) =>
<A, E>(
  operation: string,
  use: (connection: NodeConnection) => Effect.Effect<A, E>
): Effect.Effect<A, E | ClusterUnavailable> =>
  Effect.suspend(() => {
    const useIt = (connection: NodeConnection) => {
      const began = performance.now()
      return use(connection).pipe(
        Effect.tap(() => live.praise(connection)),
        // A refusal is an answer too.
        Effect.tapError((error) =>
          isUnavailable(error)
            ? live.strike(connection, performance.now() - began)
            : Effect.sync(() => live.praise(connection))
        )
      )
    }
    const current = live.current()
    if (current !== undefined) return useIt(current)
    return live.connection.pipe(
      Effect.timeoutFail({
        duration: connectTimeout,
        onTimeout: () => new ClusterUnavailable({ operation, reason: "no node could be reached" })
      }),
      Effect.flatMap(useIt)
    )
  })

/** Repeats while the cluster is unavailable. The budget counts the time since the last answer. */
const withinBudget = <A, E>(
  call: Effect.Effect<A, E | ClusterUnavailable>,
  budget: Duration.Duration
): Effect.Effect<A, E | ClusterUnavailable> =>
  Effect.retry(call, { schedule: Schedule.intersect(retrySchedule, Schedule.recurUpTo(budget)), while: isUnavailable })

const isUnavailable = (error: unknown): boolean => error instanceof ClusterUnavailable

/** Connects in the background; calls wait for a node up to their time limits. Needs nothing. */
export const layer = (options: RunsClientOptions): Layer.Layer<Runs | Queues | Schedules> =>
  Layer.scopedContext(make(options))
