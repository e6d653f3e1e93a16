/**
 * The owner's estimate of the database clock, never ahead of it.
 *
 * Every answer of PostgreSQL carries its clock, taken before the answer was sent. At its receipt the database
 * clock is at least that far, so `sample + time since receipt` is at most the true value, as far as the local
 * monotonic clock runs no faster than the database's; `drift` is taken off for that. So nothing decided by it starts
 * early, and it lags by at most the shortest answer time seen lately and by the drift since. Of the samples the highest
 * of the last 5 to 10 s counts; a sample more than a second below (the database clock was set back) counts at once.
 * When none has come for longer, `isStale`: ask before something is done because its time has come.
 */
const generationMs = 5_000
const stepMs = 1_000
/**
 * How much faster one clock may run than another: each is slewed by at most 500 ppm when it is corrected (adjtime), and a
 * machine's crystal is good to 100.
 */
export const driftMax = 0.001

interface Sample {
  /** Database time less monotonic time. */
  readonly offset: number
  readonly at: number
}

const none: Sample = { offset: -Infinity, at: 0 }

export class DatabaseClock {
  private current = none
  private previous = none
  private generationStart = -Infinity

  /**
   * `monotonic`: milliseconds that only grow, of any origin. `drift`: how much faster it may run than the database's clock; 0
   * where both are one clock.
   */
  constructor(
    private readonly monotonic: () => number = () => performance.now(),
    private readonly drift: number = driftMax
  ) {}

  /** A database time that has just been received. */
  observe(databaseNow: number): void {
    const at = this.monotonic()
    const sample = { offset: databaseNow - at, at }
    if (databaseNow < this.at(at) - stepMs) {
      this.current = sample
      this.previous = none
      this.generationStart = at
      return
    }
    if (at - this.generationStart > generationMs) {
      this.previous = this.current
      this.current = sample
      this.generationStart = at
    } else if (databaseNow > shownBy(this.current, at, this.drift)) this.current = sample
  }

  /** Milliseconds since 1970. -Infinity before the first observation: then nothing is due. */
  now(): number {
    return this.at(this.monotonic())
  }

  /** No sample for so long that the drift taken off may be worth a question. */
  get isStale(): boolean {
    return this.monotonic() - Math.max(this.current.at, this.previous.at) > 2 * generationMs
  }

  private at(monotonic: number): number {
    return Math.max(shownBy(this.current, monotonic, this.drift), shownBy(this.previous, monotonic, this.drift))
  }
}

const shownBy = ({ at, offset }: Sample, monotonic: number, drift: number): number =>
  offset + monotonic - drift * (monotonic - at)
