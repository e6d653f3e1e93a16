/** What a worker process remembers of the handlers it runs: cheap enough that it does not slow the drain it measures. */
import type { WorkReport } from "./Calls.js"
import { quantiles } from "./statistics.js"
import { type JobPayload, monotonicUs } from "./System.js"
import { jain, tenantOf } from "./tenants.js"

/** Jobs the first table of seen indexes holds; it doubles. */
const seenMin = 65_536

/** So many starts for each tenant say how they share: until then all of them have some waiting. */
const startsPerTenant = 10

/** ms since 1970, with a fraction: `Date` has none, and lateness is a few ms. */
const wallMs = (): number => performance.timeOrigin + performance.now()

export interface HandlerLogOptions {
  /** How long a handler waits, ms; 0: it returns at once. */
  readonly handlerMs: number
  /** As `JobShape.keys`. */
  readonly keys: number
  /** As `WorkInput.tenants`. */
  readonly tenants: number
  /** After each start. */
  readonly onStart: () => void
}

export class HandlerLog {
  private seen = new Uint8Array(seenMin)
  private latencies: Array<number> = []
  private readonly running = new Set<number>()
  private starts: Array<readonly [number, number]> = []
  private readonly runningOfKey: Int32Array
  private ofOthers: Array<number> = []
  /** Starts of each tenant, among the first `startsPerTenant` for each of them. */
  private startsOf: Int32Array
  private repeated = 0
  private firstUs = 0
  private lastUs = 0
  private early = 0
  private violations = 0
  /** Different jobs that have started. */
  handled = 0

  constructor(private readonly options: HandlerLogOptions) {
    this.runningOfKey = new Int32Array(options.keys)
    this.startsOf = new Int32Array(options.tenants)
  }

  /** The handler that every driver calls. */
  readonly handle = (job: JobPayload): Promise<void> | undefined => {
    this.start(job)
    const { handlerMs } = this.options
    if (handlerMs === 0) return undefined
    this.running.add(job.index)
    return new Promise((resolve) =>
      setTimeout(() => {
        this.running.delete(job.index)
        if (this.options.keys > 0) this.runningOfKey[job.index % this.options.keys]! -= 1
        resolve()
      }, handlerMs)
    )
  }

  private start(job: JobPayload): void {
    const nowUs = monotonicUs()
    if (this.firstUs === 0) this.firstUs = nowUs
    this.lastUs = nowUs
    if (this.options.handlerMs > 0) this.starts.push([job.index, nowUs])
    if (job.index >= this.seen.length) this.growTo(job.index)
    if (this.seen[job.index] === 1) this.repeated += 1
    else {
      this.seen[job.index] = 1
      this.handled += 1
      this.record(job, nowUs)
    }
    this.options.onStart()
  }

  private record(job: JobPayload, nowUs: number): void {
    const latencyMs = job.dueMs > 0 ? wallMs() - job.dueMs : (nowUs - job.submittedUs) / 1_000
    if (latencyMs < 0 && job.dueMs > 0) this.early += 1
    this.latencies.push(latencyMs)
    const { handlerMs, keys, tenants } = this.options
    if (tenants > 0) {
      const tenant = tenantOf(job.index, tenants)
      if (tenant > 0) this.ofOthers.push(latencyMs)
      if (this.handled <= startsPerTenant * tenants) this.startsOf[tenant]! += 1
    }
    if (keys === 0 || handlerMs === 0) return
    const key = job.index % keys
    if (this.runningOfKey[key]! > 0) this.violations += 1
    this.runningOfKey[key]! += 1
  }

  private growTo(index: number): void {
    const larger = new Uint8Array(Math.max(index + 1, this.seen.length * 2))
    larger.set(this.seen)
    this.seen = larger
  }

  /** Between two steps of one workload: their indexes differ, so what was seen stays. */
  forget(): void {
    this.latencies = []
    this.ofOthers = []
    this.startsOf = new Int32Array(this.options.tenants)
    this.starts = []
    this.handled = 0
    this.repeated = 0
    this.firstUs = 0
    this.lastUs = 0
    this.early = 0
    this.violations = 0
  }

  runningNow(): ReadonlyArray<number> {
    return [...this.running]
  }

  startsSince(sinceUs: number): ReadonlyArray<readonly [number, number]> {
    return this.starts.filter(([, atUs]) => atUs >= sinceUs)
  }

  report(overMs: number): WorkReport {
    return {
      handled: this.handled,
      repeated: this.repeated,
      firstUs: this.firstUs,
      lastUs: this.lastUs,
      early: this.early,
      violations: this.violations,
      over: this.latencies.reduce((count, each) => each > overMs ? count + 1 : count, 0),
      start: quantiles(this.latencies),
      others: quantiles(this.ofOthers),
      jain: jain(this.startsOf)
    }
  }
}
