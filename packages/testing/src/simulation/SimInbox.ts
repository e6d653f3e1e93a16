/**
 * The inbox of a simulation: rows that an application has committed, beside the runs of the store, and the real drain of
 * each node over it.
 */
import * as InboxDrain from "@orrery/cluster/InboxDrain"
import type { Residents } from "@orrery/cluster/Residents"
import { Fenced } from "@orrery/core/Errors"
import type { Inbox } from "@orrery/core/Inbox"
import type { Committed, JournalBatch } from "@orrery/core/Journal"
import type { MemoryTables } from "@orrery/core/MemoryTables"
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Effect, type Scope } from "effect"
import type { Mutation } from "./Mutation.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { SimNode } from "./SimNode.js"
import type { SimProcess } from "./SimProcess.js"
import type { SimStore } from "./SimStore.js"

/** Who has it looks for rows that nobody was nudged of. */
export const sweepPlace: PartitionName = { namespace: "orrery", queue: "inbox", partition: 0 }
export const isSweep = ({ namespace, queue }: PartitionName): boolean =>
  namespace === sweepPlace.namespace && queue === sweepPlace.queue

/** The table. */
export class SimInbox {
  /** In the order of their inserts. */
  readonly rows = new Map<RunId, RunRequest>()
  wasUsed = false

  constructor(private readonly tables: MemoryTables, private readonly mutation: Mutation | undefined) {}

  /** As an application does, in a transaction of its own. Sent again it changes nothing, unless the row has been taken. */
  insert(request: RunRequest): void {
    this.wasUsed = true
    if (!this.rows.has(request.id)) this.rows.set(request.id, request)
  }

  /** The commit of runs that come out of it: each is made only if its row is taken away by it. */
  commit(batch: JournalBatch, commit: (batch: JournalBatch) => Committed | undefined): Committed | undefined {
    if (batch.fromInbox !== true) return commit(batch)
    const hasRow = ({ run }: JournalBatch["inserts"][number]): boolean =>
      this.mutation === "takeInboxEarly" || this.rows.has(run.id)
      || this.tables.findRun(batch.partitionId, run.id)?.seq === run.seq
    const committed = commit({ ...batch, inserts: batch.inserts.filter(hasRow) })
    if (committed === undefined) return undefined
    const missing = batch.inserts.filter((each) => !hasRow(each)).map(({ run }) => run.id)
    for (const { run } of batch.inserts) this.rows.delete(run.id)
    return { ...committed, duplicates: new Set([...committed.duplicates, ...missing]) }
  }

  read({ namespace, queue }: PartitionName, limit: number) {
    const found = [...this.rows.values()].filter((each) => each.namespace === namespace && each.queue === queue)
    const rows = found.slice(0, limit).map((request) => ({ partition: null, request }))
    if (this.mutation === "takeInboxEarly") { for (const { request } of rows) this.rows.delete(request.id) }
    return { rows, complete: found.length <= limit }
  }

  get waiting(): ReadonlyArray<PartitionName> {
    const names = new Map<string, PartitionName>()
    for (const { namespace, queue } of this.rows.values()) {
      const name = { namespace, queue, partition: 0 }
      names.set(partitionKey(name), name)
    }
    return [...names.values()]
  }
}

/** The port, as a process sees it. */
const portOf = (store: SimStore, process: SimProcess): Inbox["Type"] => {
  const ask = store.asking(process)
  const { inbox, tables } = store
  return {
    wasUsed: ask("wasUsed", () => inbox.wasUsed),
    waiting: ask("waiting", () => inbox.waiting),
    read: (name, limit) => ask("read", () => inbox.read(name, limit)),
    place: () => Effect.dieMessage("queues of a simulation have one partition"),
    remove: ({ epoch, partitionId }, ids) =>
      Effect.flatMap(
        ask("remove", () => {
          const isOpen = tables.epochs([partitionId]).get(partitionId) === epoch
          if (isOpen) { for (const id of ids) inbox.rows.delete(id) }
          return isOpen
        }),
        (isOpen) => isOpen ? Effect.void : new Fenced({ partitionId, epoch })
      ),
    refuse: () => Effect.dieMessage("every request of a simulation can be a run")
  }
}

export interface DrainOptions {
  readonly network: SimNetwork
  readonly store: SimStore
  readonly process: SimProcess
  readonly nodeId: string
  readonly residents: Residents["Type"]
  readonly byId: (id: string) => SimNode | undefined
  readonly ownerOf: (name: PartitionName) => SimNode | undefined
  readonly isSweeper: () => boolean
  readonly onAcquired: (callback: () => void) => () => void
}

/** The real drain of one node. */
export const drainOf = (options: DrainOptions): Effect.Effect<InboxDrain.InboxDrain["Type"], never, Scope.Scope> => {
  const { byId, isSweeper, network, nodeId, onAcquired, ownerOf, process, residents, store } = options
  /** There and back; whoever asks gives up by itself. */
  const roundTrip = <A>(to: SimNode, look: () => A): Effect.Effect<A> =>
    Effect.async((resume) => {
      network.send(process, to.process, () => {
        const found = look()
        network.send(to.process, process, () => resume(Effect.succeed(found)))
      })
    })
  return InboxDrain.makeOn({
    nodeId,
    inbox: portOf(store, process),
    residents,
    partitions: new Map(),
    locate: (name) =>
      Effect.suspend(() => {
        const owner = ownerOf(name)
        if (owner === undefined) return Effect.never
        const found = { nodeId: owner.id, address: owner.id }
        return owner.id === nodeId ? Effect.succeed(found) : roundTrip(owner, () => found)
      }),
    forward: (id, name) =>
      Effect.suspend(() => {
        const owner = byId(id)
        return owner === undefined ? Effect.never : roundTrip(owner, () => owner.nudge([name], true))
      }),
    isSweeper,
    onAcquired
  })
}
