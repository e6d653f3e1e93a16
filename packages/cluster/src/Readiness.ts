/**
 * Whether this node can do its work now, and if not, why. Not whether the process is up: a node may be up, connected and
 * unable to commit. Answered from memory, so that asking costs nothing and cannot hang.
 */
import type { NodeHealth } from "@orrery/api/NodeRpcs"
import * as EndCache from "@orrery/core/EndCache"
import { Signals } from "@orrery/core/Signals"
import { Context, Effect, Layer } from "effect"
import { DatabaseMemory } from "./DatabaseMemory.js"
import { HeapWatch } from "./HeapWatch.js"
import { LockStorage } from "./LockStorage.js"
import { NodeIdentity } from "./NodeIdentity.js"
import { Reconciler } from "./Reconciler.js"
import { Residents } from "./Residents.js"
import { SelfWatch } from "./SelfWatch.js"

export class Readiness extends Context.Tag("@orrery/cluster/Readiness")<Readiness, {
  readonly health: () => NodeHealth
}>() {}

/** Commits that wait for longer, ms: the database is down, or does not keep up. */
const commitsWaitingMsMax = 3_000
/** An event loop that stands still for longer, ms, delays everything that the node is asked. */
const lagMsMax = 1_000

export interface ReadinessOptions {
  /** Ms for which commits have been waiting without any being answered; 0: none waits. */
  readonly commitsWaitingMs: () => number
}

const make = (options: ReadinessOptions) =>
  Effect.gen(function*() {
    const { nodeId } = yield* NodeIdentity
    const locks = yield* LockStorage
    const self = yield* SelfWatch
    const heap = yield* HeapWatch
    const residents = yield* Residents
    const reconciler = yield* Reconciler
    const memory = yield* DatabaseMemory
    const signals = yield* Signals
    const ends = yield* EndCache.EndCache

    const reasons = (): ReadonlyArray<string> => {
      const found: Array<string> = []
      const because = (holds: boolean, reason: () => string) => {
        if (holds) found.push(reason())
      }
      because(residents.hub.isClosed, () => "the node is stopping")
      because(
        !self.mayAct(),
        () => `shard locks were confirmed ${Math.round(locks.confirmedMsAgo())} ms ago: others may own them`
      )
      const waiting = options.commitsWaitingMs()
      because(waiting > commitsWaitingMsMax, () => `no commit was answered for ${Math.round(waiting)} ms`)
      because(self.lagMs() > lagMsMax, () => `the event loop stood still for ${Math.round(self.lagMs())} ms`)
      const overload = heap.overload()
      because(overload !== undefined, () => overload!.message)
      return found
    }
    return Readiness.of({
      health: () => ({
        nodeId,
        notReady: reasons(),
        locksConfirmedMsAgo: Math.round(locks.confirmedMsAgo()),
        commitsWaitingMs: Math.round(options.commitsWaitingMs()),
        lagMs: Math.round(self.lagMs()),
        heapPercent: heap.usedPercent(),
        partitions: residents.list().length,
        workers: residents.hub.workerCount,
        unaccounted: reconciler.unaccounted(),
        database: memory.told(),
        signals: signals.health() ?? null,
        ends: ends === EndCache.none ? null : ends.counters()
      })
    })
  })

export const layer = (options: ReadinessOptions) => Layer.effect(Readiness, make(options))
