/** Which nodes are alive, and where their data planes listen. */
import { SqlClient } from "@effect/sql"
import { Context, Effect, Layer, Schedule } from "effect"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"

export interface DirectoryEntry {
  readonly nodeId: string
  /** `host:port` of the data plane. */
  readonly dataAddress: string
  readonly runnerAddress: string
}

export class NodeDirectory extends Context.Tag("@orrery/cluster/NodeDirectory")<NodeDirectory, {
  /** Live nodes, this one included. */
  readonly live: () => ReadonlyArray<DirectoryEntry>
  /** Any node that was ever recorded, live or not; `undefined` also when the database does not answer. */
  readonly find: (nodeId: string) => Effect.Effect<DirectoryEntry | undefined>
  /** Another node answers at this address than is known here: it died and came back before anybody noticed. */
  readonly replaced: (runnerAddress: string) => void
  /** Calls back after each change. Answers how to stop. */
  readonly onChange: (callback: () => void) => () => void
}>() {}

/** After a failed read of the nodes: 100 ms doubling to 2 s, until it succeeds. */
const rereads = Schedule.exponential("100 millis").pipe(Schedule.union(Schedule.spaced("2 seconds")))

interface NodeRow {
  readonly node_id: string
  readonly runner_address: string
  readonly data_address: string
}

const entryOf = (row: NodeRow): DirectoryEntry => ({
  nodeId: row.node_id,
  dataAddress: row.data_address,
  runnerAddress: row.runner_address
})

const make = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const locks = yield* LockStorage
  const self = yield* NodeIdentity
  const own: DirectoryEntry = { nodeId: self.nodeId, dataAddress: self.dataAddress, runnerAddress: self.runnerAddress }
  const known = new Map<string, DirectoryEntry>([[self.runnerAddress, own]])
  const callbacks = new Set<() => void>()
  let live: ReadonlyArray<DirectoryEntry> = [own]

  const refresh = Effect.gen(function*() {
    const addresses = locks.runners().filter((each) => each.healthy).map((each) => each.address)
    if (addresses.some((address) => !known.has(address))) {
      const rows = yield* sql<NodeRow>`
        select distinct on (runner_address) node_id, runner_address, data_address
        from orrery.nodes where runner_address = any(${addresses}) order by runner_address, started_at desc`
      for (const row of rows) known.set(row.runner_address, entryOf(row))
    }
    const next = new Map<string, DirectoryEntry>([[own.runnerAddress, own]])
    for (const address of addresses) {
      const entry = known.get(address)
      if (entry !== undefined) next.set(address, entry)
    }
    for (const address of [...known.keys()]) if (!next.has(address)) known.delete(address)
    live = [...next.values()]
    for (const callback of callbacks) callback()
  })
  const changed = yield* Effect.makeSemaphore(1)
  const fork = yield* Effect.runtime<never>()
  const { runFork } = { runFork: (effect: Effect.Effect<void>) => void Effect.runFork(Effect.provide(effect, fork)) }
  const reread = changed.withPermits(1)(refresh).pipe(
    Effect.retry(rereads),
    Effect.catchAllCause((cause) => Effect.logWarning("could not read the nodes", cause))
  )
  const stop = locks.onRunners(() => runFork(reread))
  yield* Effect.addFinalizer(() => Effect.sync(stop))
  yield* reread
  return NodeDirectory.of({
    live: () => live,
    find: (nodeId) =>
      Effect.suspend(() => {
        const known = live.find((each) => each.nodeId === nodeId)
        if (known !== undefined) return Effect.succeed(known)
        return sql<NodeRow>`select node_id, runner_address, data_address from orrery.nodes where node_id = ${nodeId}`
          .pipe(
            Effect.map(([row]) => row === undefined ? undefined : entryOf(row)),
            Effect.orElseSucceed(() => undefined)
          )
      }),
    replaced: (runnerAddress) => {
      // Once gone from here it is on its way; the database may take its time.
      if (runnerAddress !== own.runnerAddress && known.delete(runnerAddress)) runFork(reread)
    },
    onChange: (callback) => {
      callbacks.add(callback)
      return () => {
        callbacks.delete(callback)
      }
    }
  })
})

export const layer = Layer.scoped(NodeDirectory, make)
