/** A worker as the hub of a node knows it, and how much of it is free. */
import type { ToWorker } from "@orrery/core/WorkerProtocol"
import type * as Hunger from "./Hunger.js"
import type { QueueActor } from "./QueueActor.js"

export interface Attached {
  readonly id: string
  readonly tasks: ReadonlySet<string>
  readonly deliver: (message: ToWorker) => void
  readonly closed: () => void
  credit: number
  /** How many may be out beyond the credit: they wait at the worker. */
  ahead: number
  /** It is of a release that can read assignments with a trace. */
  readsTrace: boolean
  /** All that it has, at whatever nodes; 0: it is of a release that knows no attempts of more than one. */
  slots: number
  out: number
  /** Kept for a run of this actor. */
  reservedFor: QueueActor | undefined
  /** The last dispatch in which a run found no place here. */
  refusedIn: number
  /** Half of `ahead` has been used up since it was full: it is filled in one go, not one by one. */
  isRefilling: boolean
  readonly appetite: Hunger.Appetite
  /** Partitions of which it was asked unbidden what it holds, and has not answered yet. */
  readonly asked: Set<number>
  /** Monotonic ms of its last sign of life. */
  seenAt: number
}

/** Most that one attempt may take of it. */
export const slotsOf = ({ slots }: Attached): number => Math.max(1, slots)

export const slotsFree = ({ credit, out, reservedFor }: Attached): number =>
  reservedFor === undefined ? Math.max(0, credit - out) : 0

/** How many more it may be given now. A free slot does not wait for company, unless it is kept for a run that takes several. */
export const roomOf = ({ ahead, credit, isRefilling, out, reservedFor }: Attached): number =>
  reservedFor === undefined && (out < credit || isRefilling) ? Math.max(0, credit + ahead - out) : 0

/** A free slot before a place in line; then where there is more of it. */
export const isBetter = (a: Attached, b: Attached): boolean => {
  const freeA = slotsFree(a)
  const freeB = slotsFree(b)
  return freeA === freeB ? roomOf(a) > roomOf(b) : freeA > freeB
}

/** What a worker is told, so that it announces what it holds. */
export const ownedBy = ({ epoch, machine, partitionId }: QueueActor, worker: string): ToWorker => ({
  _tag: "owned",
  partitionId,
  expects: machine.heldBy(worker),
  epoch
})
