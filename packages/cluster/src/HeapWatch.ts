/**
 * Refuses new runs while the heap is nearly full, so that what is under way has room to end. A process that runs out of
 * heap dies at once, and takes all its attempts along.
 */
import { Overloaded } from "@orrery/core/Errors"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Context, Effect, Layer } from "effect"
import { getHeapStatistics } from "node:v8"

export class HeapWatch extends Context.Tag("@orrery/cluster/HeapWatch")<HeapWatch, {
  /** Why no new run is taken now. Cheap: asked at every enqueue. */
  readonly overload: () => Overloaded | undefined
  /** Part of the heap limit in use, percent. */
  readonly usedPercent: () => number
}>() {}

/** Looked at no more often than this, ms: a look costs some microseconds. */
const lookMs = 100
/** A collection of garbage may have made room by then. */
const retryAfterMs = 500

interface Heap {
  readonly usedBytes: number
  readonly limitBytes: number
}

const read = (): Heap => {
  const heap = getHeapStatistics()
  return { usedBytes: heap.used_heap_size, limitBytes: heap.heap_size_limit }
}

export const make = (
  percentMax: number,
  look: () => Heap = read,
  monotonic: () => number = () => performance.now()
): HeapWatch["Type"] => {
  let lookedAt = -Infinity
  let answer: Overloaded | undefined
  const overload = (): Overloaded | undefined => {
    const now = monotonic()
    if (now - lookedAt < lookMs) return answer
    lookedAt = now
    const { limitBytes, usedBytes } = look()
    const limit = Math.floor(limitBytes * percentMax / 100)
    answer = usedBytes < limit
      ? undefined
      : new Overloaded({ what: "bytes of heap", limit, actual: usedBytes, retryAfterMs })
    return answer
  }
  const usedPercent = (): number => {
    const { limitBytes, usedBytes } = look()
    return Math.round(usedBytes / limitBytes * 100)
  }
  return HeapWatch.of({ overload, usedPercent })
}

export const layer: Layer.Layer<HeapWatch, never, NodeConfig> = Layer.effect(
  HeapWatch,
  Effect.map(NodeConfig, ({ heapPercentMax }) => make(heapPercentMax))
)
