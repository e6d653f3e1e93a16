/**
 * Actors and a worker in one process that is the whole cluster: no locks, no sockets, no peers. As durable as the
 * store it is given. At most one such process may use a store at a time: a second one takes every partition over, and
 * the fence stops the first.
 */
import { sameRuns } from "@orrery/api/NodeRpcs"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { ClusterUnavailable, type EditError, RunNotWaiting } from "@orrery/core/Errors"
import { explainUnowned } from "@orrery/core/Explanation"
import type { Handlers } from "@orrery/core/Handlers"
import type { Journal } from "@orrery/core/Journal"
import * as NodeConfig from "@orrery/core/NodeConfig"
import { partitionKey, type PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import type { QueueSettingsStore } from "@orrery/core/QueueSettingsStore"
import { Queues } from "@orrery/core/Queues"
import type { Run } from "@orrery/core/Run"
import type { QueueRetention } from "@orrery/core/Retention"
import type { Edited } from "@orrery/core/RunEdit"
import { RunHistory } from "@orrery/core/RunHistory"
import { RunReader } from "@orrery/core/RunReader"
import type { RunRequest } from "@orrery/core/RunRequest"
import { isFinal } from "@orrery/core/RunState"
import { type CancelAnswer, Runs } from "@orrery/core/Runs"
import { Signals } from "@orrery/core/Signals"
import * as LocalLinks from "@orrery/worker/LocalLinks"
import * as Worker from "@orrery/worker/Worker"
import { type Duration, Effect, Exit, Layer, Schedule, Scope } from "effect"
import { randomUUID } from "node:crypto"
import { explainRun } from "./explainRun.js"
import * as HubLink from "./HubLink.js"
import * as NodeQueues from "./NodeQueues.js"
import * as OwnedCalls from "./OwnedCalls.js"
import type { QueueActor } from "./QueueActor.js"
import * as Residents from "./Residents.js"
import * as SettingsCheck from "./SettingsCheck.js"
import * as Watching from "./Watching.js"

export interface SoloOptions {
  /** Attempts at a time; 0: none run here. Default 8. */
  readonly slots?: number
  /** How long running handlers may go on after the scope has closed. Default 5 s. */
  readonly shutdownGrace?: Duration.DurationInput
  /** A queue without runs and calls for this long leaves memory, ms. Default 1 min. */
  readonly passivateAfterMs?: number
  /** How long final runs are kept, where nothing else is said of their queue. Default: `retentionDefault`. */
  readonly retention?: QueueRetention
}

const sweepEvery = "1 second"
/** An actor that is being made, or was fenced and is made anew. */
const actorWaitMs = 5_000
/** One wait of `awaitFinal`; then the actor is looked for anew. */
const awaitMs = 20_000
/** An actor ended under a call: 20 ms doubling to 250 ms, for 15 s. */
const again = Schedule.exponential("20 millis").pipe(
  Schedule.union(Schedule.spaced("250 millis")),
  Schedule.upTo("15 seconds")
)

interface Home {
  readonly name: PartitionName
  readonly scope: Scope.CloseableScope
  idleSince: number
}

/** The port of runs over actors that all live here. */
export const make = (residents: Residents.Residents["Type"], passivateAfterMs: number) =>
  Effect.gen(function*() {
    const store = yield* PartitionStore
    const reader = yield* RunReader
    const progress = yield* ProgressStore
    const history = yield* RunHistory
    const parent = yield* Effect.scope
    const partitions = QueuePartitions.parse((yield* ClusterConfig).queuePartitions) ?? new Map<string, number>()
    const homes = new Map<string, Home>()

    const settle = (name: PartitionName) =>
      Effect.suspend(() => {
        const key = partitionKey(name)
        const known = homes.get(key)
        if (known !== undefined) {
          known.idleSince = performance.now()
          return Effect.void
        }
        return Effect.gen(function*() {
          const scope = yield* Scope.make()
          homes.set(key, { name, scope, idleSince: performance.now() })
          yield* Scope.extend(residents.host(name, () => true), scope)
        })
      })

    const actorOf = (name: PartitionName): Effect.Effect<QueueActor, "not-owner"> =>
      Effect.suspend(() => {
        const actor = residents.find(name)
        if (actor !== undefined) return Effect.succeed(actor)
        return Effect.zipRight(settle(name), residents.await(name, actorWaitMs)).pipe(
          Effect.flatMap((found) => found === undefined ? Effect.fail("not-owner" as const) : Effect.succeed(found))
        )
      })

    const route = <A, E>(
      operation: string,
      name: PartitionName,
      ask: (actor: QueueActor) => Effect.Effect<A, E | "not-owner">
    ): Effect.Effect<A, Exclude<E, "not-owner"> | ClusterUnavailable> =>
      Effect.flatMap(actorOf(name), ask).pipe(
        Effect.retry({ schedule: again, while: (error) => error === "not-owner" }),
        Effect.mapError((error) =>
          error === "not-owner"
            ? new ClusterUnavailable({ operation, reason: `${partitionKey(name)} could not be taken over` })
            : error as Exclude<E, "not-owner">
        )
      )

    yield* Effect.gen(function*() {
      for (const [key, home] of homes) {
        const actor = residents.find(home.name)
        if (actor === undefined || !actor.isIdle) home.idleSince = performance.now()
        if (performance.now() - home.idleSince < passivateAfterMs) continue
        homes.delete(key)
        yield* Scope.close(home.scope, Exit.void)
      }
    }).pipe(Effect.delay(sweepEvery), Effect.forever, Effect.forkScoped)
    yield* Scope.addFinalizer(
      parent,
      Effect.suspend(() =>
        Effect.forEach(homes.values(), ({ scope }) => Scope.close(scope, Exit.void), { concurrency: 64, discard: true })
      )
    )
    // What an earlier process left waiting.
    const left = yield* Effect.retry(store.listWithWork([]), again).pipe(Effect.orElseSucceed(() => []))
    yield* Effect.forEach(left, settle, { discard: true })

    const find = (id: Run["id"]) => OwnedCalls.find(reader, id)
    const explained = (run: Run) => OwnedCalls.explained(residents.hub, run)
    const nameOf = ({ namespace, partition, queue }: Run): PartitionName => ({ namespace, queue, partition })

    const awaitFinal: Runs["Type"]["awaitFinal"] = (id) =>
      Effect.gen(function*() {
        const owner = residents.holding(id)
        if (owner !== undefined) {
          const final = yield* OwnedCalls.awaitFinal(reader, owner, id, awaitMs)
          return final ?? (yield* awaitFinal(id))
        }
        const run = yield* find(id)
        if (isFinal(run.state)) return run
        const final = yield* route("await", nameOf(run), (actor) => OwnedCalls.awaitFinal(reader, actor, id, awaitMs))
        return final ?? (yield* awaitFinal(id))
      })

    const signals = yield* Signals
    const sources: Watching.WatchSources = {
      find,
      awaitFinal: (id, waitMs) => Effect.timeoutOption(awaitFinal(id), waitMs),
      progress,
      signals
    }

    return Runs.of({
      enqueueMany: (requests) =>
        Effect.gen(function*() {
          const groups = new Map<string, { readonly name: PartitionName; readonly requests: Array<RunRequest> }>()
          for (const request of requests) {
            const problem = QueuePartitions.keysProblem(partitions, request)
            if (problem !== undefined) return yield* problem
          }
          for (const request of requests) {
            const { namespace, queue } = request
            const name = { namespace, queue, partition: QueuePartitions.partitionOf(partitions, request) }
            const key = partitionKey(name)
            const group = groups.get(key)
            if (group === undefined) groups.set(key, { name, requests: [request] })
            else group.requests.push(request)
          }
          const answers = yield* Effect.forEach(groups.values(), (group) =>
            Effect.flatMap(
              route("enqueue", group.name, (actor) => OwnedCalls.enqueue(actor, group.requests)),
              ({ failures: [first], same }) =>
                first === undefined ? Effect.succeed(sameRuns(group.requests, same)) : Effect.fail(first.error)
            ), { concurrency: 16 })
          return answers.length === 1 ? answers[0]! : new Map(answers.flatMap((same) => [...same]))
        }),
      get: (id) => Effect.map(find(id), explained),
      list: (filter) => Effect.map(OwnedCalls.list(reader, filter), (runs) => runs.map(explained)),
      awaitFinal,
      progress: (id) => OwnedCalls.progress(progress, id),
      explain: (id) =>
        Effect.gen(function*() {
          const run = yield* find(id)
          const unowned = explainUnowned(run)
          if (unowned !== undefined) return unowned
          return yield* route("explain", nameOf(run), (actor) => explainRun(reader, actor, residents.hub, id))
        }),
      edit: (id, edit) =>
        Effect.gen(function*() {
          const run = yield* find(id)
          if (isFinal(run.state)) return yield* new RunNotWaiting({ runId: id, state: run.state })
          return yield* route<Edited, EditError>(
            "edit",
            nameOf(run),
            (actor) => OwnedCalls.edit(reader, actor, id, edit)
          )
        }),
      deleteFinal: (ids) => OwnedCalls.deleteFinal(history, ids),
      redrive: (id, payload) =>
        Effect.gen(function*() {
          const request = yield* OwnedCalls.redriveRequest(reader, id, payload)
          const problem = QueuePartitions.keysProblem(partitions, request)
          if (problem !== undefined) return yield* problem
          const name = { ...request, partition: QueuePartitions.partitionOf(partitions, request) }
          return yield* route("redrive", name, (actor) => OwnedCalls.redrive(reader, actor, request))
        }),
      changes: (id, after, waitMs) => Watching.runChanges(sources, id, after, Math.min(waitMs, awaitMs)),
      queueChanges: (name, after, waitMs) => Watching.queueChanges(sources, name, after, Math.min(waitMs, awaitMs)),
      cancel: (id) =>
        Effect.gen(function*() {
          const run = yield* find(id)
          if (isFinal(run.state)) return "already-final" as const
          return yield* route<CancelAnswer, ClusterUnavailable>("cancel", nameOf(run), (actor) =>
            Effect.catchTag(
              OwnedCalls.cancel(reader, actor, id),
              "RunNotFound",
              () => Effect.fail("not-owner" as const)
            ))
        })
    })
  })

/** Serves until the scope closes: then the worker drains, and the actors write what they have decided. */
export const layer = (
  options: SoloOptions = {}
): Layer.Layer<
  Runs | Queues,
  never,
  | Journal
  | PartitionStore
  | ProgressStore
  | QueueSettingsStore
  | RunHistory
  | RunReader
  | Handlers
  | ClusterConfig
> => {
  const nodeId = randomUUID()
  const residents = Layer.scoped(
    Residents.Residents,
    Residents.make({
      nodeId,
      windowRunsMax: NodeConfig.windowRunsMaxDefault,
      windowBytesMax: NodeConfig.windowBytesMaxDefault,
      retention: options.retention,
      mayTakeOver: () => true
    })
  )
  const runs = Layer.scoped(
    Runs,
    Effect.flatMap(
      Residents.Residents,
      (found) => make(found, options.passivateAfterMs ?? NodeConfig.passivateAfterMsDefault)
    )
  )
  const slots = options.slots ?? NodeConfig.workerSlotsDefault
  const worker = Layer.unwrapEffect(
    Effect.gen(function*() {
      const { hub } = yield* Residents.Residents
      const { leaseMs } = yield* ClusterConfig
      if (slots === 0) return Layer.empty
      return Worker.layer({ slots, shutdownGrace: options.shutdownGrace ?? "5 seconds" }).pipe(
        Layer.provide(LocalLinks.layer([HubLink.make(nodeId, hub, leaseMs)]))
      )
    })
  )
  const queues = Layer.effect(
    Queues,
    Effect.flatMap(
      Residents.Residents,
      ({ list }) => NodeQueues.makeOn((record) => Effect.sync(() => SettingsCheck.apply(list(), record)))
    )
  )
  return worker.pipe(Layer.provideMerge(Layer.merge(runs, queues)), Layer.provide(residents))
}
