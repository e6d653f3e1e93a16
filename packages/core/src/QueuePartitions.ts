/**
 * How many partitions a queue has, and which of them a run belongs to. One by default: then order, limits and fairness are
 * exact over the whole queue. A hot queue gets more; its runs are spread by their key where they have one, so that what holds
 * for a key stays exact, else by id; a request that is sent again finds the partition it went to before. Order among keys, and
 * fairness, are then kept within each partition only.
 */
import { fraction } from "./Entry.js"
import { InvalidRequest } from "./Errors.js"
import { nameLengthMax, namePattern } from "./Name.js"
import { parseKeys, type RunKeys } from "./RunKeys.js"
import { ruleOf } from "./RunRequest.js"

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

export const countOf = (
  partitions: QueuePartitions,
  { namespace, queue }: { readonly namespace: string; readonly queue: string }
): number => partitions.get(keyOf(namespace, queue)) ?? 1

/** The partition of a run. Plain code: it runs once per enqueued run. */
export const partitionOf = (
  partitions: QueuePartitions,
  run: Partitioned
): number => {
  if (partitions.size === 0) return 0
  const count = partitions.get(keyOf(run.namespace, run.queue)) ?? 1
  if (count === 1) return 0
  const [key] = exactKeys(run)
  // The same on every node, and for good: what was sent again must find its partition.
  return Math.floor(fraction(key ?? run.id, 0) * count)
}

interface Partitioned {
  readonly namespace: string
  readonly queue: string
  readonly id: string
  readonly task: string
  readonly policy: string
  readonly keys: string | null
  readonly identity?: string
}

/** Two keys of one run could belong to two partitions, and no owner could keep both: that is refused. */
export const keysProblem = (partitions: QueuePartitions, run: Partitioned): InvalidRequest | undefined => {
  if ((run.keys === null && run.identity === undefined) || partitions.size === 0) return undefined
  const count = partitions.get(keyOf(run.namespace, run.queue)) ?? 1
  const keys = count === 1 ? [] : exactKeys(run)
  return keys.length <= 1 ? undefined : new InvalidRequest({
    field: "keys",
    limit: `at most one key of identity, order, concurrency or rate in a queue with ${count} partitions`,
    actual: keys.join(", ")
  })
}

/** What must be kept exactly, key by key. */
const exactKeys = (run: Partitioned): ReadonlyArray<string> => {
  if (run.keys === null && run.identity === undefined) return noKeys
  const keys = run.keys === null ? none : parseKeys(run.keys)
  if (keys instanceof InvalidRequest) return []
  const { limits = [], order, rates = [] }: RunKeys = keys
  const named = new Set([...limits, ...rates].map(({ key, name }) => `${name}|${key}`))
  const all = order === undefined ? [...named] : [`>${order}`, ...named]
  // A run that is kept behind another one of its identity has an ordering key made of it.
  if (run.identity === undefined || ruleOf(run)._tag === "keepLast") return all
  return [`=${run.task}|${run.identity}`, ...all]
}
const none: RunKeys = {}
const noKeys: ReadonlyArray<string> = []

const keyOf = (namespace: string, queue: string): string => `${namespace}|${queue}`
