/**
 * The owner's estimate of the database clock, never ahead of it.
 *
 * Every answer of PostgreSQL carries its clock, taken before the answer was sent. At its receipt the database
 * clock is at least that far, so `sample + time since receipt` is at most the true value: nothing decided by
 * it starts early, and it lags by at most the shortest answer time seen lately. Of the samples the highest of the
 * last 5 to 10 s counts, so that drift of the local monotonic clock does not add up; a sample more than a second
 * below (the database clock was set back) counts at once.
 */
const generationMs = 5_000
const stepMs = 1_000

export class DatabaseClock {
  private current = -Infinity
  private previous = -Infinity
  private generationStart = -Infinity

  /** `monotonic`: milliseconds that only grow, of any origin. */
  constructor(private readonly monotonic: () => number = () => performance.now()) {}

  /** A database time that has just been received. */
  observe(databaseNow: number): void {
    const at = this.monotonic()
    const sample = databaseNow - at
    if (sample < this.offset - stepMs) {
      this.current = sample
      this.previous = -Infinity
      this.generationStart = at
      return
    }
    if (at - this.generationStart > generationMs) {
      this.previous = this.current
      this.current = sample
      this.generationStart = at
    } else if (sample > this.current) this.current = sample
  }

  /** Milliseconds since 1970. -Infinity before the first observation: then nothing is due. */
  now(): number {
    return this.offset + this.monotonic()
  }

  private get offset(): number {
    return this.current > this.previous ? this.current : this.previous
  }
}
