/**
 * How many partitions a queue has, and which of them a run belongs to. One by default: then order, limits and fairness are
 * exact over the whole queue. A hot queue gets more; its runs are spread by id, so a request that is sent again finds the
 * partition it went to before. Order is then kept within each partition only.
 */
import { fraction } from "./Entry.js"
import { nameLengthMax, namePattern } from "./Name.js"

/** Partitions of one queue. Each is an actor of its own; more than there are cores in the cluster gain nothing. */
export const partitionsMax = 256
const queuesMax = 1_000

export type QueuePartitions = ReadonlyMap<string, number>

/** `queue=4,other=2`; a queue of a namespace other than `default` as `namespace|queue=4`. `undefined`: not of this form. */
export const parse = (text: string): QueuePartitions | undefined => {
  const found = new Map<string, number>()
  const parts = text.split(",").map((part) => part.trim()).filter((part) => part !== "")
  for (const part of parts) {
    const [, namespace = "default", queue = "", count = ""] = /^(?:([^|=]+)\|)?([^|=]+)=(\d{1,3})$/.exec(part) ?? []
    const partitions = Number(count)
    const isGood = namePattern.test(namespace) && namePattern.test(queue) && partitions >= 1
      && partitions <= partitionsMax
    const key = keyOf(namespace, queue)
    if (!isGood || found.has(key) || found.size >= queuesMax) return undefined
    found.set(key, partitions)
  }
  return found
}

export const accepts = `a list of queue=partitions, such as "mail=4,reports|pdf=2" (at most ${queuesMax} queues, `
  + `names up to ${nameLengthMax} characters, 1 to ${partitionsMax} partitions)`

/** The partition of a run. Plain code: it runs once per enqueued run. */
export const partitionOf = (
  partitions: QueuePartitions,
  run: { readonly namespace: string; readonly queue: string; readonly id: string }
): number => {
  if (partitions.size === 0) return 0
  const count = partitions.get(keyOf(run.namespace, run.queue)) ?? 1
  // The same on every node, and for good: what was sent again must find its partition.
  return count === 1 ? 0 : Math.floor(fraction(run.id, 0) * count)
}

const keyOf = (namespace: string, queue: string): string => `${namespace}|${queue}`
