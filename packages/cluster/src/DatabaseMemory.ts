/**
 * Notices that the database is not the one it was: restored from a backup, copied, or another one altogether. Acknowledged
 * runs may be missing from it, and epochs that were given out once would be given out again, which is the one thing the
 * fence cannot survive. So a node that finds it out refuses to run, writes that down for all others, and an operator
 * decides (`orrery migrate --accept-restore`).
 *
 * Compared are
 *   with itself          the server, the database and the timeline that it was recorded on
 *   with running nodes   each remembers its incarnation and how far the epochs had come; who starts asks them
 *   with a file          the same, where `ORRERY_STATE_DIR` is set: for a cluster that was down as a whole
 *
 * and when: at start, after take-overs, and whenever a connection for the locks is made anew, since no database can be
 * replaced under an open one. What cannot be noticed is in docs/decisions/0009.
 */
import { SqlClient, type SqlError } from "@effect/sql"
import { connect } from "@orrery/api/NodeConnection"
import type { NodeHealth } from "@orrery/api/NodeRpcs"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Context, Deferred, Effect, Fiber, FiberSet, Layer, Queue, Schedule, type Scope } from "effect"
import * as DatabaseRecord from "./DatabaseRecord.js"
import { NodeIdentity, StartFailed } from "./NodeIdentity.js"
import * as StateFile from "./StateFile.js"

/** What is remembered of a database while it cannot be asked. */
export interface Memory {
  readonly incarnation: string
  readonly timeline: number | null
  /** Sum of the epochs of all partitions, at least. */
  readonly epochs: number
}

export class DatabaseMemory extends Context.Tag("@orrery/cluster/DatabaseMemory")<DatabaseMemory, {
  /** What a node that starts may ask for. */
  readonly told: () => NodeHealth["database"]
  /**
   * A partition is about to be taken over; to be told the epoch then. False: its epoch had been further already when it
   * began, so the database is not the one it was.
   */
  readonly takingOver: (partition: string) => (epoch: number) => boolean
  /** Has the database looked at again, in the background. */
  readonly verifySoon: () => void
  /** False from the moment it was found that the database is not the one it was. */
  readonly isTrusted: () => boolean
  /**
   * Looks once more if there is something to see, and then no more. For a node that leaves: its last take-overs are to be
   * remembered, and it is about to strike itself off, which must not be taken for a loss.
   */
  readonly rest: Effect.Effect<void>
  /** Completes with the reason when the database is not the one it was. */
  readonly regressed: Effect.Effect<string>
}>() {}

/** Nodes that are asked at start, the youngest first. */
const peersMax = 16
const peerTimeout = "500 millis"
/** Take-overs and connections come in bursts: one look for all of them. */
const gather = "200 millis"
/** The node leaves then, whether that could be written down or not. */
const haltWithin = "2 seconds"
/** A node that leaves waits no longer for its last look. */
const lastLookWithin = "2 seconds"
/** A database that has just come back may go again: looked at anew every second, for a minute. */
const again = Schedule.spaced("1 second").pipe(Schedule.upTo("1 minute"))

/** How it differs from what it was recorded on; `undefined`: it does not. */
export const displaced = (
  { actual, recorded }: Pick<DatabaseRecord.Found, "actual" | "recorded">,
  newTimeline: "accept" | "refuse"
): string | undefined => {
  if (recorded === undefined) return undefined
  const differs = (name: "system" | "database") =>
    recorded[name] !== null && actual[name] !== null && recorded[name] !== actual[name]
  if (differs("system")) return `it was recorded on server ${recorded.system}, and this is server ${actual.system}`
  if (differs("database")) return `it was recorded as database ${recorded.database}, and this is ${actual.database}`
  if (recorded.timeline === null || actual.timeline === null) return undefined
  const timelines = `it was recorded on timeline ${recorded.timeline}, and this is ${actual.timeline}`
  if (actual.timeline < recorded.timeline) return timelines
  return actual.timeline > recorded.timeline && newTimeline === "refuse"
    ? `${timelines}: it was recovered from a backup, or a standby was promoted`
    : undefined
}

/** How it falls short of what somebody remembers; `undefined`: it does not. */
export const regression = (
  memory: Memory,
  { epochs, recorded }: Pick<DatabaseRecord.Found, "epochs" | "recorded">,
  whose: string
): string | undefined => {
  if (recorded === undefined) return `${whose} remembers incarnation ${memory.incarnation}, and it has none`
  if (recorded.incarnation !== memory.incarnation) {
    // Given up by an operator: what is remembered of it counts no more.
    return recorded.previous.includes(memory.incarnation)
      ? undefined
      : `${whose} remembers incarnation ${memory.incarnation}, and it is ${recorded.incarnation}`
  }
  return epochs < memory.epochs
    ? `${whose} remembers that the epochs had come to ${memory.epochs}, and they are at ${epochs}`
    : undefined
}

const refusal = (reason: string) =>
  new StartFailed({
    isTemporary: false,
    reason: `this database is not the one it was (${reason}): acknowledged runs may be missing from it. `
      + "When it is the right one, stop all nodes and run `orrery migrate --accept-restore` (docs/decisions/0009)"
  })

const unreadable = (cause: SqlError.SqlError) =>
  new StartFailed({ isTemporary: true, reason: `the database could not be looked at: ${cause.message}`, cause })

/** The same node, not another one that has its address now. */
const askPeer = ({ data_address, node_id }: { readonly node_id: string; readonly data_address: string }) =>
  connect(data_address, { openTimeout: peerTimeout }).pipe(
    Effect.flatMap((node) => node.call("Health", (client) => client.Health(), peerTimeout)),
    Effect.scoped,
    Effect.map((health) => health.nodeId === node_id && health.database !== null ? [health] : []),
    Effect.orElseSucceed(() => [])
  )

const askPeers = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ node_id: string; data_address: string }>`
    select node_id::text as node_id, data_address from orrery.nodes order by started_at desc limit ${peersMax}`
  return (yield* Effect.forEach(rows, askPeer, { concurrency: peersMax })).flat()
})

/** The checks of a start. Answers what is to be remembered. */
const checked = Effect.gen(function*() {
  const { newTimeline, stateDir } = yield* NodeConfig
  const { nodeId } = yield* NodeIdentity
  // Asked first: epochs only grow, so what they knew then is the least that must be found after.
  const peers = yield* askPeers
  let found = yield* DatabaseRecord.read(nodeId)
  if (found.recorded === undefined) {
    yield* DatabaseRecord.record(found.actual)
    found = yield* DatabaseRecord.read(nodeId)
  }
  if (found.halted !== undefined) return yield* refusal(found.halted)
  const file = yield* StateFile.read(stateDir)
  const problem = displaced(found, newTimeline)
    ?? peers.map(({ database, nodeId }) => regression({ ...database!, timeline: null }, found, `node ${nodeId}`))
      .find((each) => each !== undefined)
  const ofFile = file === undefined ? undefined : regression(file, found, "the state file of this node")
  // A file of another cluster says nothing about this database: only this node does not start.
  if (problem === undefined && ofFile !== undefined && file!.incarnation !== found.recorded!.incarnation) {
    return yield* refusal(`${ofFile}; when that is a file of another cluster, set ORRERY_STATE_DIR to another folder`)
  }
  const halting = problem ?? ofFile
  if (halting !== undefined) {
    yield* DatabaseRecord.halt(halting)
    return yield* refusal(halting)
  }
  const { actual: { timeline }, recorded } = found
  if (timeline !== null && timeline !== recorded!.timeline) {
    yield* Effect.logWarning(`the database is on timeline ${timeline} now, and was on ${recorded!.timeline}`)
    yield* DatabaseRecord.recordTimeline(timeline)
  }
  return { incarnation: recorded!.incarnation, timeline, epochs: found.epochs } satisfies Memory
}).pipe(Effect.catchTag("SqlError", (cause) => unreadable(cause)))

const make: Effect.Effect<
  DatabaseMemory["Type"],
  StartFailed,
  NodeConfig | NodeIdentity | SqlClient.SqlClient | Scope.Scope
> = Effect.gen(function*() {
  const { newTimeline, stateDir } = yield* NodeConfig
  const { nodeId } = yield* NodeIdentity
  const context = yield* Effect.context<SqlClient.SqlClient>()
  let memory: Memory = yield* checked
  const epochs = new Map<string, number>()
  const regressed = yield* Deferred.make<string>()
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const file = yield* StateFile.keep(stateDir, () => memory)
  const looks = yield* Queue.sliding<void>(1)
  const counts = { asked: 0, looked: 0 }
  const verifySoon = () => {
    counts.asked += 1
    looks.unsafeOffer(undefined)
  }

  const verify = Effect.gen(function*() {
    const before = memory
    const { asked } = counts
    const found = yield* DatabaseRecord.read(nodeId)
    const problem = found.halted
      ?? displaced(found, newTimeline)
      ?? regression(before, found, "this node")
      ?? (found.recorded!.incarnation === before.incarnation ? undefined : "an operator has accepted it meanwhile")
      ?? (found.knowsNode ? undefined : "this node was written down in it, and is not any more")
    if (problem !== undefined) return problem
    counts.looked = asked
    memory = { ...memory, timeline: found.actual.timeline, epochs: Math.max(memory.epochs, found.epochs) }
    file.changed()
    return undefined
  }).pipe(
    Effect.catchIf(DatabaseRecord.isEmptied, () => Effect.succeed("its tables are gone")),
    Effect.retry(again),
    Effect.catchAll(() => Effect.succeed(undefined)),
    Effect.provide(context)
  )

  let isTrusted = true
  const refuse = (problem: string) => {
    // At once: by further take-overs the epochs would come to pass what is remembered.
    isTrusted = false
    return Effect.logError(`the database is not the one it was: ${problem}`).pipe(
      Effect.zipRight(Effect.timeout(DatabaseRecord.halt(problem), haltWithin)),
      Effect.catchAllCause((cause) => Effect.logWarning("could not write that down", cause)),
      Effect.zipRight(Deferred.succeed(regressed, problem)),
      Effect.annotateLogs({ module: "DatabaseMemory" }),
      Effect.provide(context),
      Effect.asVoid
    )
  }

  const look = Effect.flatMap(verify, (problem) => problem === undefined ? Effect.void : refuse(problem))
  const looking = yield* Queue.take(looks).pipe(
    Effect.zipRight(Effect.sleep(gather)),
    Effect.zipRight(look),
    Effect.forever,
    Effect.forkScoped
  )
  const lastLook = Effect.suspend(() =>
    counts.looked === counts.asked || !isTrusted
      ? Effect.void
      // Within a finalizer too, which nothing would end while the database is away.
      : Effect.timeoutOption(Effect.interruptible(look), lastLookWithin)
  )

  return DatabaseMemory.of({
    told: () => ({ incarnation: memory.incarnation, epochs: memory.epochs }),
    isTrusted: () => isTrusted,
    takingOver: (partition) => {
      // What comes to be known meanwhile says nothing: the answers of two take-overs may overtake each other.
      const before = epochs.get(partition) ?? 0
      return (epoch) => {
        if (!isTrusted) return false
        if (epoch <= before) {
          fork(refuse(`this node had ${partition} under epoch ${before}, and was given ${epoch} now`))
          return false
        }
        epochs.set(partition, Math.max(epoch, epochs.get(partition) ?? 0))
        // The sum has grown, perhaps by the work of others too.
        verifySoon()
        return true
      }
    },
    verifySoon,
    rest: Effect.asVoid(Effect.zipRight(Fiber.interrupt(looking), lastLook)),
    regressed: Deferred.await(regressed)
  })
})

export const layer: Layer.Layer<
  DatabaseMemory,
  StartFailed,
  NodeConfig | NodeIdentity | SqlClient.SqlClient
> = Layer.scoped(DatabaseMemory, make)
