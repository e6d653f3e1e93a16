/**
 * Where the partitions of other nodes are, as far as this node has heard. All of it may be of the past: who is asked wrongly
 * says so, and is forgotten.
 *
 * A node that has left is asked no more, and nobody goes on waiting for it. One that said so itself serves its partitions until
 * they have another owner (`HandOver`): it is asked while the members are already without it, until it cannot be reached.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { partitionKey, type PartitionName } from "@orrery/core/PartitionStore"
import { Effect, FiberSet } from "effect"
import { NodeDirectory } from "./NodeDirectory.js"

const ownersMax = 10_000
/** Addresses of nodes that have left. */
const leftMax = 1_000
/** A node that drains is through by then (`Drain`). */
const departsWithin = "10 seconds"

export interface Owners {
  readonly find: (key: string) => string | undefined
  readonly learn: (key: string, address: string) => void
  readonly forget: (key: string) => void
  /** It stops, and these are the partitions that it serves until then. Answers `false` for one that is not known. */
  readonly departs: (nodeId: string, partitions: ReadonlyArray<PartitionName>) => boolean
  readonly isDeparting: (address: string) => boolean
  /** A call there came to nothing: one that departs is gone, then. */
  readonly failed: (address: string) => void
  /** A frozen node answers nothing and breaks no connection: whoever waits for it gives up when it has been left out. */
  readonly leftOut: (address: string) => Effect.Effect<never, ClusterUnavailable>
}

export const make = Effect.gen(function*() {
  const directory = yield* NodeDirectory
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const owners = new Map<string, string>()
  const departing = new Set<string>()
  const watchers = new Set<() => void>()
  const addresses = () => new Set(directory.live().map((node) => node.dataAddress))
  let live = addresses()
  // Not all that are not live: another node may know of a new one before this one does.
  let left = new Set<string>()

  const drop = (): void => {
    for (const [key, address] of owners) if (left.has(address)) owners.delete(key)
    for (const watcher of watchers) watcher()
  }
  const stop = directory.onChange(() => {
    const before = live
    live = addresses()
    if (left.size > leftMax) left = new Set()
    for (const address of before) if (!live.has(address) && !departing.has(address)) left.add(address)
    for (const address of live) {
      left.delete(address)
      // Back, as a new one.
      if (!before.has(address)) departing.delete(address)
    }
    drop()
  })
  yield* Effect.addFinalizer(() => Effect.sync(stop))

  const gone = (address: string): void => {
    if (!departing.delete(address) || live.has(address)) return
    left.add(address)
    drop()
  }
  const learn = (key: string, address: string): void => {
    if (owners.size >= ownersMax) owners.clear()
    owners.set(key, address)
  }

  const all: Owners = {
    find: (key) => owners.get(key),
    learn,
    forget: (key) => void owners.delete(key),
    departs: (nodeId, partitions) => {
      const address = directory.live().find((each) => each.nodeId === nodeId)?.dataAddress
      if (address === undefined) return false
      if (!departing.has(address)) {
        departing.add(address)
        fork(Effect.delay(Effect.sync(() => gone(address)), departsWithin))
      }
      for (const name of partitions) learn(partitionKey(name), address)
      return true
    },
    isDeparting: (address) => departing.has(address),
    failed: gone,
    leftOut: (address) =>
      Effect.async<never, ClusterUnavailable>((resume) => {
        const look = () => {
          if (!left.has(address)) return
          resume(
            Effect.fail(new ClusterUnavailable({ operation: "forward", reason: `${address} has left the cluster` }))
          )
        }
        watchers.add(look)
        look()
        return Effect.sync(() => watchers.delete(look))
      })
  }
  return all
})
