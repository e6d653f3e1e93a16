/** How fast runs of a partition have started lately: what estimates of waits rest on. Two additions for each start. */
import type { Eta } from "./Explanation.js"

const slotMs = 5_000
const slots = 24
/** Of the normal distribution, at nine tenths. */
const ninth = 1.2816

export class StartPace {
  private readonly counts = new Array<number>(slots).fill(0)
  private slot = 0
  private since = -1

  started(now: number): void {
    if (this.since < 0) this.since = now
    this.turn(now)
    this.counts[this.slot % slots]! += 1
  }

  /** Until the `count`th start from now. */
  eta(count: number, now: number): Eta | null {
    if (this.since < 0) return null
    this.turn(now)
    const from = Math.max(this.since, (this.slot - slots + 1) * slotMs)
    const total = this.counts.reduce((sum, each) => sum + each, 0)
    // The first start shows no pace yet; and what is shorter than a second is no sample.
    if (total < 2) return null
    const perMs = total / Math.max(1_000, now - from)
    const spread = Math.max(1, this.spread(from))
    return {
      p50Ms: Math.round(count / perMs),
      p90Ms: Math.round((count + ninth * Math.sqrt(spread * count)) / perMs)
    }
  }

  /** Variance of the slots by their mean: 1 for starts that come by chance, more for those in bursts. */
  private spread(from: number): number {
    const first = Math.floor(from / slotMs)
    const full = this.counts.filter((_, at) => {
      const slot = this.slot - ((this.slot - at) % slots + slots) % slots
      return slot >= first && slot < this.slot
    })
    if (full.length < 3) return 1
    const mean = full.reduce((sum, each) => sum + each, 0) / full.length
    if (mean === 0) return 1
    return full.reduce((sum, each) => sum + (each - mean) ** 2, 0) / full.length / mean
  }

  private turn(now: number): void {
    const slot = Math.floor(now / slotMs)
    if (slot <= this.slot) return
    for (let at = Math.max(this.slot + 1, slot - slots + 1); at <= slot; at++) this.counts[at % slots] = 0
    this.slot = slot
  }
}
