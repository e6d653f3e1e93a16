/** One session with one node, as the worker sees it: what it holds of that node, what it has to tell it, and its share of the slots. */
import type { NodeLink, WorkerSession } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"
import type { Held } from "./Attempts.js"
import { Bell } from "./within.js"

export interface Binding {
  readonly node: string
  readonly session: WorkerSession
  /** The node is still among the live ones. */
  readonly isListed: () => boolean
  isOpen: boolean
  /** Monotonic, ms: when the last call that was answered had been sent. The owner's lease began no earlier. */
  lastAnswer: number
  readonly held: Set<Held>
  /** Assigned and not begun, oldest first. */
  readonly ready: Set<Held>
  /** Open while `ready` may hold something. */
  readonly lingering: Effect.Latch
  /** What is in `ready` waits until the node has answered to a question of now. */
  isUnsure: boolean
  /** Open when the node is to be asked at once. */
  readonly asking: Bell
  isStarting: boolean
  /** Slots of its attempts that run. */
  running: number
  /** Most that ran at once since `peakSince`; by this, and not by the moment, it is judged what the node uses. */
  peak: number
  peakSince: number
  /** Outcomes to be sent, oldest first. Those under way are not in it. */
  readonly outbox: Set<Held>
  /** Open while `outbox` may hold something. */
  readonly wake: Effect.Latch
  /** Open when `outbox` need not wait for more. */
  readonly due: Bell
  /** Attempts with notes to be sent. */
  readonly noted: Set<Held>
  /** Open while `noted` may hold something. */
  readonly noteWake: Effect.Latch
  /** Open when somebody waits for some of them. */
  readonly noteDue: Bell
  /** Opened when the session has ended, and to end it from this side. */
  readonly lost: Effect.Latch
  /** Tells the node which attempts of the partition are held. */
  readonly announce: (partitionId: number) => void
  credit: number
  /** What the node was last allowed beyond its credit. */
  ahead: number
  /** What may be running of this node at most: its credit, or more where that was lowered below what it had out. */
  ceiling: number
  hungry: boolean
  /** Most slots that one of the runs takes which wait there. */
  need: number
  /** Monotonic, ms: when an attempt of it began that takes more than one slot. */
  largeAt: number
  /** Monotonic, ms: no credit calls before that. */
  quietUntil: number
}

/** `sentAt`: monotonic, ms. */
export const makeBinding = (
  node: { readonly link: NodeLink; readonly isListed: boolean },
  session: WorkerSession,
  sentAt: number,
  announce: Binding["announce"]
): Effect.Effect<Binding> =>
  Effect.sync(() => ({
    node: node.link.node,
    session,
    isListed: () => node.isListed,
    isOpen: true,
    lastAnswer: sentAt,
    held: new Set(),
    ready: new Set(),
    lingering: Effect.unsafeMakeLatch(false),
    isUnsure: false,
    asking: new Bell(),
    isStarting: false,
    running: 0,
    peak: 0,
    peakSince: sentAt,
    outbox: new Set(),
    wake: Effect.unsafeMakeLatch(false),
    due: new Bell(),
    noted: new Set(),
    noteWake: Effect.unsafeMakeLatch(false),
    noteDue: new Bell(),
    lost: Effect.unsafeMakeLatch(false),
    announce,
    credit: 0,
    ahead: 0,
    ceiling: 0,
    hungry: false,
    need: 1,
    largeAt: -Infinity,
    quietUntil: 0
  }))

/** Part of the lease after which the worker no longer counts on it, if nothing was answered. */
const leasePart = 0.8

/** By the worker's monotonic clock, ms. */
export const leaseEnds = ({ lastAnswer, session }: Binding): number => lastAnswer + session.leaseMs * leasePart
