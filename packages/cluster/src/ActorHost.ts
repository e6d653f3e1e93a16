/** What a queue actor needs of its node, and what it answers. */
import type { InvalidRequest, Overloaded, PayloadTooLarge, QueueFull, QuotaExceeded } from "@orrery/core/Errors"
import type { WorkerPool } from "@orrery/core/Entry"
import type { Journal } from "@orrery/core/Journal"
import type { RunId } from "@orrery/core/RunId"
import type { PartitionName, PartitionStore } from "@orrery/core/PartitionStore"
import type { ProgressStore } from "@orrery/core/ProgressStore"
import type { QueueRetention } from "@orrery/core/Retention"
import type { SignalsService } from "@orrery/core/Signals"
import type { StartLimits } from "@orrery/core/StartLimits"
import type { Assignment, AttemptRef } from "@orrery/core/WorkerProtocol"
import type { Effect, Fiber } from "effect"
import type { ActorTurns } from "./ActorTurns.js"
import type { DatabaseClock } from "./DatabaseClock.js"
import type { QueueActor } from "./QueueActor.js"

/** Answer to one enqueued run. */
export type RowAnswer = "stored" | SameAs | InvalidRequest | PayloadTooLarge | Overloaded | QueueFull | QuotaExceeded

/** No run was made: this one, which is durable, stands for it. */
export class SameAs {
  readonly _tag = "SameAs"
  constructor(readonly id: RunId) {}
}

/** The actor is not, or no longer, the owner. What was asked may or may not have happened; ask the owner. */
export const notOwner = "not-owner" as const
export type NotOwner = typeof notOwner

export type StopReason = "closed" | "fenced" | "unavailable" | "exhausted"

/** Calls back at a database time, once; a later `set` replaces the earlier. `Infinity`: never. */
export interface Alarm {
  readonly set: (at: number) => void
  readonly stop: () => void
}

/** What an actor needs of its node. */
export interface ActorHost {
  readonly journal: Journal["Type"]
  readonly store: PartitionStore["Type"]
  readonly progress: ProgressStore["Type"]
  readonly clock: DatabaseClock
  readonly turns: Pick<ActorTurns, "add">
  readonly workers: {
    readonly poolFor: (actor: QueueActor) => WorkerPool
    readonly assign: (worker: string, assignments: ReadonlyArray<Assignment>) => void
    readonly interrupt: (worker: string, attempts: ReadonlyArray<AttemptRef>) => void
    readonly freed: (workers: ReadonlyArray<string>) => void
    /** After each dispatch. `mayStart`: it would start more if it had slots. */
    readonly wanting: (actor: QueueActor, mayStart: boolean) => void
  }
  readonly signals: SignalsService
  /** Of limits that span queues. */
  readonly limits: StartLimits
  /** False: others may act in the place of this node. Nothing new is started; what is written meets the fence. */
  readonly mayAct: () => boolean
  /** Why new runs are not taken now, however few wait. */
  readonly overload: () => Overloaded | undefined
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly makeAlarm: (ring: () => void) => Alarm
  /** Of its queue, by which its limits are divided. */
  readonly partitionsOf: (name: PartitionName) => number
  readonly agingStepMs: number
  readonly maxCrashes: number
  /** As `MachineOptions.retention`. */
  readonly retention?: QueueRetention | undefined
  readonly adoptionGraceMs: number
  readonly lostWorkerGraceMs: number
  readonly payloadBytesMax: number
  readonly windowRunsMax: number
  readonly windowBytesMax: number
}
