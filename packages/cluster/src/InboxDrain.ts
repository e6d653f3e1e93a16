/**
 * Brings what applications have committed to the inbox to its owners. Each owner takes the rows of its partition, page by
 * page: one commit makes the runs and takes their rows away, so a row becomes a run once, whoever dies in between.
 *
 *   nudge   somebody says that there may be rows. It is passed on to the owner, and many that come while one is
 *           followed are one
 *   sweep   the net: one node, that which has the shard of `sweepKey`, looks which partitions have rows. 50 ms after it has found
 *           some, twice as long after each look in vain, up to 1 s. It begins when the inbox is used for the first time
 *           in the life of the database, which is looked for every 15 s: who never uses it pays nothing
 *
 * A queue with several partitions: the owner of the first one finds out where its rows belong, and marks them.
 */
import { Sharding } from "@effect/cluster"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { failureText } from "@orrery/core/Entry"
import type { InvalidRequest, PayloadTooLarge } from "@orrery/core/Errors"
import { Inbox, type InboxRow, type Refusal } from "@orrery/core/Inbox"
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Context, Duration, Effect, FiberSet, Layer, Queue } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Peers } from "./Peers.js"
import type { QueueActor } from "./QueueActor.js"
import { QueueEntity, shardGroup } from "./QueueEntity.js"
import { Residents } from "./Residents.js"

export class InboxDrain extends Context.Tag("@orrery/cluster/InboxDrain")<InboxDrain, {
  /** The inbox may have rows of these. Never fails and never waits. `forwarded`: here the way ends. */
  readonly nudge: (partitions: ReadonlyArray<PartitionName>, forwarded?: boolean) => void
}>() {}

/** Rows of one page, and of one commit. */
const pageRowsMax = 1_000
/** Payloads of one page, bytes. */
const pageBytesMax = 4 * 1024 * 1024
/** Partitions served or sought at once; more wait for the sweep. */
const servedMax = 256
/** Pause of a partition that has no room. */
const fullPause = "500 millis"
const locateTimeout = "1 second"
const residentWaitMs = 2_000
const forwardWithin = "1 second"
const sweepKey = "orrery|inbox|sweep"
const sweepMsMin = 50
const sweepMsMax = 1_000
/** Pause while the inbox has never been used, or another node sweeps, ms. */
const restMs = 15_000
/** At least so many times as long as the last look took: dead rows, held by a transaction elsewhere, make it long. */
const sweepPauseFactor = 20

interface Serving {
  /** Told again since the last look. */
  again: boolean
  /** Of the last page, whose runs are stored. One that is still there was stored on another way. */
  stored: ReadonlySet<RunId>
}

/** What the drain needs of its node. */
export interface DrainHost {
  readonly nodeId: string
  readonly inbox: Inbox["Type"]
  readonly residents: Pick<Residents["Type"], "find" | "await">
  /** By queue: how many partitions it has, where it has more than one. */
  readonly partitions: ReadonlyMap<string, number>
  /** Has the owner of a partition made, and tells where it lives. */
  readonly locate: (
    name: PartitionName
  ) => Effect.Effect<{ readonly nodeId: string; readonly address: string }, unknown>
  /** Nudges the node at that address. */
  readonly forward: (address: string, name: PartitionName) => Effect.Effect<void, unknown>
  /** The sweep is this node's. */
  readonly isSweeper: () => boolean
  /** Calls back when it may have become so. Answers how to stop. */
  readonly onAcquired: (callback: () => void) => () => void
}

export const makeOn = Effect.fnUntraced(function*(
  { forward, inbox, isSweeper, locate, nodeId, onAcquired, partitions, residents }: DrainHost
) {
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const served = new Map<string, Serving>()

  const nudge: InboxDrain["Type"]["nudge"] = (names, forwarded = false) => {
    for (const name of names) {
      const key = partitionKey(name)
      const known = served.get(key)
      if (known !== undefined) known.again = true
      else if (served.size < servedMax) {
        const serving: Serving = { again: true, stored: none }
        served.set(key, serving)
        fork(serve(name, serving, forwarded))
      }
    }
  }

  const serve = (name: PartitionName, serving: Serving, forwarded: boolean): Effect.Effect<void> => {
    const key = partitionKey(name)
    const isOver = (): boolean => {
      if (!serving.again) served.delete(key)
      return !serving.again
    }
    const once = Effect.suspend(() => {
      serving.again = false
      return reach(name, serving, forwarded)
    })
    return once.pipe(
      Effect.repeat({ until: isOver }),
      // Not there, not now, or not ours any more: the sweep finds what is left.
      Effect.catchAllCause((cause) => Effect.logDebug("could not drain the inbox", cause)),
      Effect.ensuring(Effect.sync(() => {
        if (served.get(key) === serving) served.delete(key)
      })),
      Effect.annotateLogs({ module: "InboxDrain", partition: key })
    )
  }

  const reach = Effect.fnUntraced(function*(name: PartitionName, serving: Serving, forwarded: boolean) {
    const resident = residents.find(name)
    if (resident !== undefined) return yield* drain(resident, serving)
    const owner = yield* locate(name).pipe(Effect.disconnect, Effect.timeout(locateTimeout))
    if (owner.nodeId === nodeId) {
      const actor = yield* residents.await(name, residentWaitMs)
      if (actor !== undefined) yield* drain(actor, serving)
    } else if (!forwarded) yield* Effect.timeout(forward(owner.address, name), forwardWithin)
  })

  /** Page by page until there is none, or some must wait. */
  const drain = (actor: QueueActor, serving: Serving): Effect.Effect<void, unknown> =>
    Effect.gen(function*() {
      const { rows } = yield* inbox.read(actor.name, pageRowsMax, pageBytesMax)
      if (rows.length === 0) {
        serving.stored = none
        return false
      }
      const mayGoOn = yield* takeIn(actor, rows, serving)
      if (!mayGoOn) yield* Effect.sleep(fullPause)
      return mayGoOn
    }).pipe(Effect.repeat({ while: (more) => more }), Effect.asVoid)

  /** Answers whether there is room for more. */
  const takeIn = Effect.fnUntraced(function*(actor: QueueActor, rows: ReadonlyArray<InboxRow>, serving: Serving) {
    const elsewhere: Array<{ readonly id: RunId; readonly partition: number }> = []
    const left: Array<RunId> = []
    const own: Array<RunRequest> = []
    const refusals: Array<Refusal> = []
    for (const { partition, request } of rows) {
      if (serving.stored.has(request.id)) {
        left.push(request.id)
        continue
      }
      const problem = QueuePartitions.keysProblem(partitions, request)
      if (problem !== undefined) {
        refusals.push(refusalOf(request.id, problem))
        continue
      }
      const belongsTo = partition ?? QueuePartitions.partitionOf(partitions, request)
      if (belongsTo === actor.name.partition) own.push({ ...request, fromInbox: true })
      else elsewhere.push({ id: request.id, partition: belongsTo })
    }
    if (elsewhere.length > 0) {
      yield* inbox.place(elsewhere)
      const others = new Set(elsewhere.map(({ partition }) => partition))
      nudge([...others].map((partition) => ({ ...actor.name, partition })))
    }
    const stored = new Set<RunId>()
    let mayGoOn = true
    const answers = own.length === 0 ? [] : yield* actor.enqueue(own)
    answers.forEach((answer, at) => {
      const { id } = own[at]!
      if (answer === "stored") stored.add(id)
      // Another run stands for it, durably.
      else if (answer._tag === "SameAs") left.push(id)
      else if (answer._tag === "InvalidRequest" || answer._tag === "PayloadTooLarge") {
        refusals.push(refusalOf(id, answer))
      } else mayGoOn = false
    })
    serving.stored = stored
    if (left.length > 0) yield* inbox.remove(actor, left)
    if (refusals.length > 0) {
      yield* inbox.refuse(actor, refusals)
      for (const { id } of refusals) actor.watchers.notify(id)
      const text = `${refusals.length} requests of the inbox cannot become runs, ${refusals[0]!.id} as the first`
      yield* Effect.logWarning(`${text}: ${refusals[0]!.failure}`)
    }
    return mayGoOn
  })

  yield* sweeping({ inbox, nudge, isOurs: isSweeper, onAcquired })
  return InboxDrain.of({ nudge })
})

const sweeping = Effect.fnUntraced(function*(
  { inbox, isOurs, nudge, onAcquired }: {
    readonly inbox: Inbox["Type"]
    readonly nudge: InboxDrain["Type"]["nudge"]
    readonly isOurs: () => boolean
    readonly onAcquired: LockStorage["Type"]["onAcquired"]
  }
) {
  const hints = yield* Queue.sliding<void>(1)
  yield* Effect.acquireRelease(
    Effect.sync(() => onAcquired(() => void hints.unsafeOffer(undefined))),
    (stop) => Effect.sync(stop)
  )
  let isUsed = false
  let pauseMs = sweepMsMin
  const look = Effect.gen(function*() {
    if (!isOurs()) return restMs
    if (!isUsed) isUsed = yield* inbox.wasUsed
    if (!isUsed) return restMs
    const [took, found] = yield* Effect.timed(inbox.waiting)
    nudge(found)
    pauseMs = found.length > 0 ? sweepMsMin : Math.min(2 * pauseMs, sweepMsMax)
    return Math.max(pauseMs, sweepPauseFactor * Duration.toMillis(took))
  })
  yield* look.pipe(
    Effect.catchAllCause((cause) => Effect.as(Effect.logWarning("could not look into the inbox", cause), sweepMsMax)),
    Effect.flatMap((ms) => Effect.raceFirst(Queue.take(hints), Effect.sleep(ms))),
    // The shard counts as ours a moment after its lock was taken.
    Effect.zipRight(Effect.sleep("5 millis")),
    Effect.forever,
    Effect.annotateLogs({ module: "InboxDrain" }),
    Effect.forkScoped
  )
})

/** Characters of what is wrong with a request. */
const problemLengthMax = 500

const none: ReadonlySet<RunId> = new Set()

const refusalOf = (id: RunId, problem: InvalidRequest | PayloadTooLarge): Refusal => ({
  id,
  failure: failureText("undecodable", problem._tag, problem.message.slice(0, problemLengthMax))
})

const make = Effect.gen(function*() {
  const sharding = yield* Sharding.Sharding
  const peers = yield* Peers
  const client = yield* QueueEntity.client
  return yield* makeOn({
    nodeId: (yield* NodeIdentity).nodeId,
    inbox: yield* Inbox,
    residents: yield* Residents,
    partitions: QueuePartitions.parse((yield* ClusterConfig).queuePartitions) ?? new Map<string, number>(),
    locate: (name) => client(partitionKey(name)).Locate(),
    forward: (address, name) =>
      Effect.scoped(
        Effect.flatMap(peers.connection(address), (connection) =>
          connection.call("nudge", (node) =>
            node.Nudge({ partitions: [name], forwarded: true }), forwardWithin))
      ),
    isSweeper: () => sharding.hasShardId(sharding.getShardId(sweepKey as never, shardGroup)),
    onAcquired: (yield* LockStorage).onAcquired
  })
})

export const layer = Layer.scoped(InboxDrain, make)
