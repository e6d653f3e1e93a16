/** What a `QueueMachine` is made of: settings, and what the store held when its partition was taken over. */
import type { StoredRun } from "./Journal.js"
import type { QueueRules } from "./QueueSettings.js"
import type { QueueRetention } from "./Retention.js"
import type { Lender } from "./SpanGates.js"
import type { WindowLimits } from "./Window.js"

export interface MachineOptions {
  readonly partitionId: number
  readonly epoch: number
  readonly agingStepMs: number
  readonly maxCrashes: number
  readonly window: WindowLimits
  /** What is said of the queue, as of the take-over. */
  readonly rules?: QueueRules | undefined
  /** For all queues, where nothing else is said of one. Default: `retentionDefault`. */
  readonly retention?: QueueRetention | undefined
  /** Of room at limits that span queues. Without one, runs that need it do not start. */
  readonly lender?: Lender | undefined
}

export interface Taken {
  readonly now: number
  readonly lines: ReadonlyArray<string>
  readonly hasTimers: boolean
  readonly running: ReadonlyArray<StoredRun>
  /** Running attempts that no worker has announced by then are lost. */
  readonly adoptUntil: number
}
