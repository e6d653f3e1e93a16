/**
 * The way from any node to the owner of a partition: a direct call when the actor lives here, one RPC when it lives
 * elsewhere. What cannot be answered by the owner in time is asked again of whoever the owner is then; all of it may
 * be repeated, since run ids are made by the client.
 */
import { Sharding } from "@effect/cluster"
import { forwardEnqueue } from "@orrery/api/FrameCalls"
import { encodeRequests } from "@orrery/api/Frames"
import type { Client, NodeConnection } from "@orrery/api/NodeConnection"
import { type EnqueueAnswer, NotOwner, sameRuns } from "@orrery/api/NodeRpcs"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import {
  ClusterUnavailable,
  type EditError,
  type RedriveError,
  type RunNotFound,
  RunNotWaiting
} from "@orrery/core/Errors"
import { EndCache } from "@orrery/core/EndCache"
import { explainUnowned, type Explanation } from "@orrery/core/Explanation"
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import { ProgressStore } from "@orrery/core/ProgressStore"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import type { Run } from "@orrery/core/Run"
import type { Edited, RunEdit } from "@orrery/core/RunEdit"
import { RunHistory } from "@orrery/core/RunHistory"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { RunReader } from "@orrery/core/RunReader"
import { isFinal } from "@orrery/core/RunState"
import { type CancelAnswer, type Redriven, Runs } from "@orrery/core/Runs"
import { Signals } from "@orrery/core/Signals"
import { Context, Duration, Effect, Layer, Schedule } from "effect"
import { explainRun } from "./explainRun.js"
import { InboxDrain } from "./InboxDrain.js"
import { NodeDirectory } from "./NodeDirectory.js"
import { NodeIdentity } from "./NodeIdentity.js"
import * as OwnedCalls from "./OwnedCalls.js"
import type { RowFailure } from "./OwnedCalls.js"
import * as Owners from "./Owners.js"
import { Peers } from "./Peers.js"
import type { QueueActor } from "./QueueActor.js"
import { entityIdProblem, QueueEntity, shardGroup } from "./QueueEntity.js"
import { Residents } from "./Residents.js"
import * as Watching from "./Watching.js"

/** How long an owner is looked for before a call fails with `ClusterUnavailable`. */
const routeBudget = Duration.seconds(15)
/**
 * Between two tries: none the first time, for whoever was asked wrongly has said so; then 20 ms doubling to 100 ms. Most of the
 * time a try waits for the members to change.
 */
const routeRetry = Schedule.recurs(1).pipe(
  Schedule.andThen(Schedule.exponential("20 millis").pipe(Schedule.union(Schedule.spaced("100 millis"))))
)
/** Longest wait for the word of one runner; then the owner is looked for anew. */
const locateTimeout = "1 second"
const residentWaitMs = 2_000
const callTimeout = "5 seconds"
/** Of an enqueue at a node that departs: its heirs are there by then. */
const departingTimeout = "1500 millis"
/** Longest wait of one call for the end of a run. */
export const waitMsMax = 20_000

export class Gateway extends Context.Tag("@orrery/cluster/Gateway")<Gateway, {
  /** Stores the runs, wherever their owners are; answers which were not, and why, and for which others stand. */
  readonly enqueue: (requests: ReadonlyArray<RunRequest>) => Effect.Effect<EnqueueAnswer, ClusterUnavailable>
  readonly get: (id: RunId) => Effect.Effect<Run, RunNotFound | ClusterUnavailable>
  readonly list: Runs["Type"]["list"]
  readonly cancel: Runs["Type"]["cancel"]
  readonly edit: Runs["Type"]["edit"]
  readonly redrive: Runs["Type"]["redrive"]
  readonly progress: Runs["Type"]["progress"]
  readonly explain: Runs["Type"]["explain"]
  readonly changes: Runs["Type"]["changes"]
  readonly queueChanges: Runs["Type"]["queueChanges"]
  /** The run once it is final, or `null` after `waitMs`. */
  readonly awaitFinal: (id: RunId, waitMs: number) => Effect.Effect<Run | null, RunNotFound | ClusterUnavailable>
  readonly departs: Owners.Owners["departs"]
  /** What another node asks of the owner it takes this node for. */
  readonly owned: {
    readonly enqueue: (
      name: PartitionName,
      requests: ReadonlyArray<RunRequest>
    ) => Effect.Effect<EnqueueAnswer, NotOwner>
    readonly cancel: (
      name: PartitionName,
      id: RunId
    ) => Effect.Effect<CancelAnswer, NotOwner | RunNotFound | ClusterUnavailable>
    readonly edit: (name: PartitionName, id: RunId, edit: RunEdit) => Effect.Effect<Edited, NotOwner | EditError>
    readonly explain: (
      name: PartitionName,
      id: RunId
    ) => Effect.Effect<Explanation, NotOwner | RunNotFound | ClusterUnavailable>
    /** `id`: of the dead letter, whose redrive belongs to the partition. */
    readonly redrive: (
      name: PartitionName,
      id: RunId,
      payload: string | undefined
    ) => Effect.Effect<Redriven, NotOwner | RedriveError>
    readonly awaitFinal: (
      name: PartitionName,
      id: RunId,
      waitMs: number
    ) => Effect.Effect<Run | null, NotOwner | RunNotFound | ClusterUnavailable>
  }
}>() {}

type Owner = { readonly actor: QueueActor } | { readonly address: string }

/** Requests of one partition, and where in their batch they stand. */
interface Group {
  readonly name: PartitionName
  readonly requests: Array<RunRequest>
  readonly places: Array<number>
}

const make = Effect.gen(function*() {
  const residents = yield* Residents
  const sharding = yield* Sharding.Sharding
  const self = yield* NodeIdentity
  const peers = yield* Peers
  const reader = yield* RunReader
  const progress = yield* ProgressStore
  const signals = yield* Signals
  const ends = yield* EndCache
  const locate = yield* QueueEntity.client
  const directory = yield* NodeDirectory
  const partitions = QueuePartitions.parse((yield* ClusterConfig).queuePartitions) ?? new Map<string, number>()
  const owners = yield* Owners.make

  /** The members have changed, so the owner may have. */
  const membersChanged = Effect.async<never, "members-changed">((resume) =>
    Effect.sync(directory.onChange(() => resume(Effect.fail("members-changed"))))
  )

  /** Has the actor made on the node that has its shard, which tells where that is. */
  const findOwner = (name: PartitionName) =>
    locate(partitionKey(name)).Locate().pipe(
      Effect.disconnect,
      Effect.timeout(locateTimeout),
      Effect.raceFirst(membersChanged),
      Effect.catchAllCause(() => Effect.fail(notOwner(name)))
    )

  const notOwner = (name: PartitionName) => new NotOwner(name)
  const mayLiveHere = (name: PartitionName) =>
    sharding.hasShardId(sharding.getShardId(partitionKey(name) as never, shardGroup))

  /** The actor, if it is here or should be. */
  const local = Effect.fnUntraced(function*(name: PartitionName) {
    const actor = residents.find(name)
    if (actor !== undefined) return actor
    if (!mayLiveHere(name)) return yield* notOwner(name)
    yield* findOwner(name)
    return (yield* residents.await(name, residentWaitMs)) ?? (yield* notOwner(name))
  })

  const ownerOf = Effect.fnUntraced(function*(name: PartitionName): Effect.fn.Return<Owner, NotOwner> {
    const actor = residents.find(name)
    if (actor !== undefined) return { actor }
    const key = partitionKey(name)
    const known = owners.find(key)
    if (known !== undefined && (!mayLiveHere(name) || owners.isDeparting(known))) return { address: known }
    const found = yield* findOwner(name)
    if (found.nodeId === self.nodeId) {
      return { actor: (yield* residents.await(name, residentWaitMs)) ?? (yield* notOwner(name)) }
    }
    owners.learn(key, found.address)
    return { address: found.address }
  })

  /** Asks the owner until it answers. `again` is true from the second time on. */
  const route = <A, E>(
    operation: string,
    name: PartitionName,
    ask: {
      readonly here: (actor: QueueActor, again: boolean) => Effect.Effect<A, E | NotOwner>
      readonly there: (address: string, again: boolean) => Effect.Effect<A, E | NotOwner | ClusterUnavailable>
    }
  ): Effect.Effect<A, Exclude<E, NotOwner> | ClusterUnavailable> => {
    let tries = 0
    const once = Effect.suspend(() => {
      const again = tries++ > 0
      return Effect.flatMap(
        ownerOf(name),
        (owner) => "actor" in owner ? ask.here(owner.actor, again) : ask.there(owner.address, again)
      )
    }).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error instanceof NotOwner || error instanceof ClusterUnavailable) owners.forget(partitionKey(name))
        })
      )
    )
    return once.pipe(
      Effect.retry({
        schedule: routeRetry.pipe(Schedule.upTo(routeBudget)),
        while: (error) => error instanceof NotOwner || error instanceof ClusterUnavailable
      }),
      Effect.catchAll((error) =>
        Effect.fail(
          error instanceof NotOwner
            ? new ClusterUnavailable({
              operation,
              reason: `no owner of ${partitionKey(name)} found in ${Duration.format(routeBudget)}`
            })
            : error
        )
      )
    ) as Effect.Effect<A, Exclude<E, NotOwner> | ClusterUnavailable>
  }

  const at = <A, E>(address: string, use: (connection: NodeConnection) => Effect.Effect<A, E>) =>
    Effect.raceFirst(Effect.scoped(Effect.flatMap(peers.connection(address), use)), owners.leftOut(address)).pipe(
      Effect.tapError((error) => Effect.sync(() => error instanceof ClusterUnavailable && owners.failed(address)))
    )

  const call = <A, E>(
    operation: string,
    address: string,
    make: (client: Client) => Effect.Effect<A, E>,
    timeout: Duration.DurationInput = callTimeout
  ) => at(address, (connection) => connection.call(operation, make, timeout))

  const asNotOwner = (name: PartitionName) => <E>(error: E): NotOwner | Exclude<E, "not-owner"> =>
    error === "not-owner" ? notOwner(name) : error as Exclude<E, "not-owner">

  const store = (actor: QueueActor, name: PartitionName, requests: ReadonlyArray<RunRequest>) =>
    Effect.mapError(OwnedCalls.enqueue(actor, requests), () => notOwner(name))

  const resent = (requests: ReadonlyArray<RunRequest>, again: boolean) =>
    again ? requests.map((request) => ({ ...request, resend: true })) : requests

  const enqueueGroup = (name: PartitionName, requests: ReadonlyArray<RunRequest>) =>
    route<EnqueueAnswer, never>("enqueue", name, {
      here: (actor, again) => store(actor, name, resent(requests, again)),
      there: (address, again) =>
        at(address, (connection) => {
          const rows = encodeRequests(resent(requests, again))
          const timeout = owners.isDeparting(address) ? departingTimeout : callTimeout
          return connection.request(forwardEnqueue, [name.namespace, name.queue, name.partition, rows], timeout)
        }).pipe(
          Effect.catchTag(
            "UnknownFrameVersion",
            (error) => Effect.fail(new ClusterUnavailable({ operation: "enqueue", reason: error.message }))
          )
        )
    })

  /** The owner, when it lives here and all requests are its own: nearly every batch, and no way to look for. */
  const onlyOwner = (requests: ReadonlyArray<RunRequest>): QueueActor | undefined => {
    const [first] = requests
    if (first === undefined) return undefined
    const { namespace, queue } = first
    const partition = QueuePartitions.partitionOf(partitions, first)
    for (const each of requests) {
      if (each.queue !== queue || each.namespace !== namespace) return undefined
      if (QueuePartitions.keysProblem(partitions, each) !== undefined) return undefined
      if (QueuePartitions.partitionOf(partitions, each) !== partition) return undefined
    }
    return residents.find({ namespace, queue, partition })
  }

  const enqueue: Gateway["Type"]["enqueue"] = (requests) => {
    const actor = onlyOwner(requests)
    if (actor === undefined) return enqueueRouted(requests)
    // Its fate is unknown: what was stored of it is recognised as such.
    return Effect.catchAll(OwnedCalls.enqueue(actor, requests), () => enqueueRouted(resent(requests, true)))
  }

  const enqueueRouted: Gateway["Type"]["enqueue"] = (requests) => {
    const groups = new Map<string, Group>()
    const invalid: Array<RowFailure> = []
    let group: Group | undefined
    requests.forEach((request, at) => {
      const { namespace, queue } = request
      const problem = QueuePartitions.keysProblem(partitions, request)
      if (problem !== undefined) {
        invalid.push({ index: at, error: problem })
        return
      }
      const partition = QueuePartitions.partitionOf(partitions, request)
      // Most batches are of one partition: its key is made once.
      if (group?.name.queue !== queue || group.name.namespace !== namespace || group.name.partition !== partition) {
        const name = { namespace, queue, partition }
        const key = partitionKey(name)
        group = groups.get(key)
        if (group === undefined) {
          group = { name, requests: [], places: [] }
          groups.set(key, group)
        }
      }
      group.requests.push(request)
      group.places.push(at)
    })
    const valid = [...groups.values()].filter((group) => {
      const problem = entityIdProblem(group.name)
      if (problem === undefined) return true
      for (const index of group.places) invalid.push({ index, error: problem })
      return false
    })
    return Effect.forEach(
      valid,
      (group) =>
        Effect.map(
          enqueueGroup(group.name, group.requests),
          ({ failures, same }): EnqueueAnswer => ({
            failures: failures.map(({ error, index }) => ({ index: group.places[index]!, error })),
            ...same === undefined ? {} : { same: same.map(({ id, index }) => ({ index: group.places[index]!, id })) }
          })
        ),
      { concurrency: 16 }
    ).pipe(
      Effect.map((answers) => {
        const same = answers.flatMap((each) => each.same ?? [])
        const failures = [...invalid, ...answers.flatMap((each) => each.failures)]
        return same.length === 0 ? { failures } : { failures, same }
      })
    )
  }

  const find = (id: RunId) => OwnedCalls.find(reader, id)
  const taken = (id: RunId, waitMs: number) => OwnedCalls.findTaken(reader, id, waitMs)
  const arrived = (operation: string, id: RunId) => OwnedCalls.findArrived(reader, operation, id, routeBudget)

  const nameOf = (run: Run): PartitionName => ({ namespace: run.namespace, queue: run.queue, partition: run.partition })

  const cancelHere = (actor: QueueActor, name: PartitionName, id: RunId) =>
    Effect.mapError(OwnedCalls.cancel(reader, actor, id), asNotOwner(name))

  const editHere = (actor: QueueActor, name: PartitionName, id: RunId, edit: RunEdit) =>
    Effect.mapError(OwnedCalls.edit(reader, actor, id, edit), asNotOwner(name))
  const explainHere = (actor: QueueActor, name: PartitionName, id: RunId) =>
    Effect.mapError(explainRun(reader, actor, residents.hub, id), asNotOwner(name))
  const redriveHere = (actor: QueueActor, name: PartitionName, request: RunRequest) =>
    Effect.mapError(OwnedCalls.redrive(reader, actor, request), asNotOwner(name))

  const waitHere = (actor: QueueActor, id: RunId, waitMs: number) => OwnedCalls.awaitFinal(reader, actor, id, waitMs)

  const awaitFinal: Gateway["Type"]["awaitFinal"] = (id, wait) =>
    Effect.gen(function*() {
      const waitMs = Math.min(wait, waitMsMax)
      const owner = residents.holding(id)
      if (owner !== undefined) return yield* waitHere(owner, id, waitMs)
      const kept = yield* ends.find(id)
      if (kept !== undefined) return kept
      const run = yield* taken(id, waitMs)
      if (run === undefined) return null
      if (isFinal(run.state)) {
        // Others may come back for it as this one did.
        ends.keep(run)
        return run
      }
      const name = nameOf(run)
      return yield* route<Run | null, RunNotFound | ClusterUnavailable>("await", name, {
        here: (actor) => waitHere(actor, id, waitMs),
        there: (address) =>
          call(
            "forward await",
            address,
            (client) => client.ForwardAwait({ partition: name, id, waitMs }),
            waitMs + 5_000
          )
      })
    })

  const sources: Watching.WatchSources = { find, awaitFinal, progress, signals }

  return Gateway.of({
    enqueue,
    get: (id) => Effect.map(find(id), (run) => OwnedCalls.explained(residents.hub, run)),
    list: (filter) =>
      Effect.map(
        OwnedCalls.list(reader, filter),
        (runs) => runs.map((run) => OwnedCalls.explained(residents.hub, run))
      ),
    cancel: (id) =>
      Effect.gen(function*() {
        const run = yield* arrived("cancel", id)
        if (isFinal(run.state)) return "already-final" as const
        const name = nameOf(run)
        return yield* route<CancelAnswer, RunNotFound | ClusterUnavailable>("cancel", name, {
          here: (actor) => cancelHere(actor, name, id),
          there: (address) => call("forward cancel", address, (client) => client.ForwardCancel({ partition: name, id }))
        })
      }),
    edit: (id, edit) =>
      Effect.gen(function*() {
        const run = yield* arrived("edit", id)
        if (isFinal(run.state)) return yield* new RunNotWaiting({ runId: id, state: run.state })
        const name = nameOf(run)
        return yield* route<Edited, EditError>("edit", name, {
          here: (actor) => editHere(actor, name, id, edit),
          there: (address) =>
            call("forward edit", address, (client) => client.ForwardEdit({ partition: name, id, edit }))
        })
      }),
    progress: (id) => OwnedCalls.progress(progress, id),
    explain: (id) =>
      Effect.gen(function*() {
        const run = yield* find(id)
        const unowned = explainUnowned(run)
        if (unowned !== undefined) return unowned
        const name = nameOf(run)
        return yield* route<Explanation, RunNotFound | ClusterUnavailable>("explain", name, {
          here: (actor) => explainHere(actor, name, id),
          there: (address) =>
            call("forward explain", address, (client) => client.ForwardExplain({ partition: name, id }))
        })
      }),
    redrive: (id, payload) =>
      Effect.gen(function*() {
        const request = yield* OwnedCalls.redriveRequest(reader, id, payload)
        const problem = QueuePartitions.keysProblem(partitions, request)
        if (problem !== undefined) return yield* problem
        const { namespace, queue } = request
        const name = { namespace, queue, partition: QueuePartitions.partitionOf(partitions, request) }
        return yield* route<Redriven, RedriveError>("redrive", name, {
          here: (actor) => redriveHere(actor, name, request),
          there: (address) =>
            call("forward redrive", address, (client) =>
              client.ForwardRedrive({ partition: name, id, ...payload === undefined ? {} : { payload } }))
        })
      }),
    awaitFinal,
    departs: owners.departs,
    changes: (id, after, wait) => Watching.runChanges(sources, id, after, Math.min(wait, waitMsMax)),
    queueChanges: (name, after, wait) => Watching.queueChanges(sources, name, after, Math.min(wait, waitMsMax)),
    owned: {
      enqueue: (name, requests) => Effect.flatMap(local(name), (actor) => store(actor, name, requests)),
      redrive: (name, id, payload) =>
        Effect.gen(function*() {
          const request = yield* OwnedCalls.redriveRequest(reader, id, payload)
          return yield* redriveHere(yield* local(name), name, request)
        }),
      cancel: (name, id) => Effect.flatMap(local(name), (actor) => cancelHere(actor, name, id)),
      edit: (name, id, edit) => Effect.flatMap(local(name), (actor) => editHere(actor, name, id, edit)),
      explain: (name, id) => Effect.flatMap(local(name), (actor) => explainHere(actor, name, id)),
      awaitFinal: (name, id, waitMs) =>
        Effect.flatMap(local(name), (actor) => waitHere(actor, id, Math.min(waitMs, waitMsMax))).pipe(
          // It is awaited where the owner is not.
          Effect.tap((run) => Effect.sync(() => run !== null && ends.keep(run)))
        )
    }
  })
})

export const layer = Layer.scoped(Gateway, make)

/** core's port, for code inside the node. */
export const layerRuns = Layer.effect(
  Runs,
  Effect.map(Effect.all([Gateway, InboxDrain, RunHistory]), ([gateway, inbox, history]) =>
    Runs.of({
      enqueueMany: (requests) =>
        Effect.flatMap(gateway.enqueue(requests), ({ failures, same }) =>
          failures.length === 0 ? Effect.succeed(sameRuns(requests, same)) : Effect.fail(failures[0]!.error)),
      get: gateway.get,
      list: gateway.list,
      cancel: gateway.cancel,
      explain: gateway.explain,
      edit: gateway.edit,
      deleteFinal: (ids) =>
        OwnedCalls.deleteFinal(history, ids),
      redrive: gateway.redrive,
      nudge: (queues) =>
        Effect.sync(() =>
          inbox.nudge(queues.map(({ namespace, queue }) => ({ namespace, queue, partition: 0 })))
        ),
      progress: gateway.progress,
      changes: gateway.changes,
      queueChanges: gateway.queueChanges,
      awaitFinal: (id) =>
        gateway.awaitFinal(id, waitMsMax).pipe(
          Effect.repeat({
            until: (run) => run !== null
          }),
          Effect.map((run) => run)
        )
    }))
)
