/**
 * What holds for all runs of a partition beside their keys: whether any may start now, and at what rate. A start under a limit
 * of the queue is told to its worker once its mark is durable, as with limits of keys: so a new owner knows of each.
 */
import type { WorkerPool } from "./Entry.js"
import { Rate } from "./Gates.js"
import type { Leases } from "./Leases.js"
import type { Line } from "./Line.js"
import { halfOf } from "./Need.js"
import type { Taken } from "./Started.js"
import { StartPace } from "./StartPace.js"
import type { MachineOptions } from "./MachineOptions.js"
import { noRules, type QueueRules } from "./QueueSettings.js"
import { type KeptDays, keptDaysOf, over, type QueueRetention } from "./Retention.js"

export class QueueControl {
  rules: QueueRules = noRules
  /** Whether anything is said at all: nearly no queue has to look further. */
  private isPlain = true
  private rate: Rate | undefined
  readonly pace = new StartPace()

  /** How long its runs are kept once they have ended. */
  kept: KeptDays
  private readonly retention: QueueRetention | undefined

  /** `takenOverAt`: as for `Rate`. */
  constructor(
    { retention, rules }: Pick<MachineOptions, "rules" | "retention">,
    takenOverAt: number | undefined,
    now: number
  ) {
    this.retention = retention
    this.kept = keptDaysOf(retention)
    if (rules !== undefined) this.apply(rules, now, takenOverAt)
  }

  /** A rate that is new counts starts from now on; one that is changed goes on counting. */
  apply(rules: QueueRules, now: number, takenOverAt?: number): void {
    this.rules = rules
    this.isPlain = rules.paused === undefined && !this.isExact
    this.kept = keptDaysOf(over(this.retention, rules.retention))
    if (rules.rate === undefined) {
      this.rate = undefined
      return
    }
    this.rate ??= new Rate("queue", takenOverAt, now)
    this.rate.set({ name: "queue", key: "*", ...rules.rate })
  }

  /** Marks of starts must be durable before workers hear of them. */
  get isExact(): boolean {
    return this.rules.concurrency !== undefined || this.rules.rate !== undefined
  }

  /** Whether one more may start. */
  mayStart(now: number, running: number): boolean {
    if (this.isPlain) return true
    const { concurrency, paused } = this.rules
    if (paused !== undefined || (concurrency !== undefined && running >= concurrency)) return false
    return this.rate === undefined || this.rate.room(now) > 0
  }

  /** Whether it is a run of a backfill, and others of those have half of the queue's concurrency, or of the slots. */
  holds({ need, task }: Line, { backfills }: Leases, pool: WorkerPool): boolean {
    if (need?.isBackfill !== true) return false
    const { concurrency } = this.rules
    return (concurrency !== undefined && backfills >= halfOf(concurrency)) || pool.holds?.(task, need) === true
  }

  /** When the rate lets the next one start, if that is what it waits for; `null`: not known. `undefined`: it does not wait. */
  rateOpensAt(now: number): number | null | undefined {
    if (this.rate === undefined || this.rate.room(now) > 0) return undefined
    const at = this.rate.opensAt(now)
    return at === Infinity ? null : at
  }

  /** One starts, which has taken these rates: with that of the queue, if it has one. */
  take(rates: ReadonlyArray<Taken>, now: number): ReadonlyArray<Taken> {
    this.pace.started(now)
    return this.rate === undefined ? rates : [...rates, { rate: this.rate, cost: this.rate.take(now) }]
  }

  nextTick(now: number): number {
    return this.rate === undefined || this.rules.paused !== undefined ? Infinity : this.rateOpensAt(now) ?? Infinity
  }
}
