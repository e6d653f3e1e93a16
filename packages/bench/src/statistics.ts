/** The few numbers that say what a list of measurements says. */

/** Which way is faster: rates are better high, times and memory are better low. */
export type Better = "higher" | "lower"

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
  /** Measurements taken. */
  readonly n: number
}

/** Of latencies, in ms. Nearest rank: a value that was measured, never one between two. */
export interface Quantiles {
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly max: number
}

const ascending = (values: ReadonlyArray<number>): ReadonlyArray<number> => [...values].sort((a, b) => a - b)

/** Of an even number the mean of the two in the middle. NaN of none. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = ascending(values)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1
    ? sorted[Math.floor(middle)]!
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
}

export const spread = (values: ReadonlyArray<number>): Spread => {
  const sorted = ascending(values)
  return {
    median: median(sorted),
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
    n: sorted.length
  }
}

/** All 0 of none, so that they can be sent as JSON. */
export const quantiles = (values: ReadonlyArray<number>): Quantiles => {
  const sorted = Float64Array.from(values).sort()
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: sorted.at(-1) ?? 0 }
}

/** How many times better `ours` is than `theirs`: 2 is twice the rate, or half the time. `null` when one is 0. */
export const ratio = (ours: number, theirs: number, better: Better): number | null => {
  const value = better === "higher" ? ours / theirs : theirs / ours
  return Number.isFinite(value) ? value : null
}

export const isBetter = (a: number, b: number, better: Better): boolean => better === "higher" ? a > b : a < b

/**
 * A stream of numbers from 0 to below 1 that is the same for the same seed (mulberry32), so that two runs put the same
 * bytes into payloads.
 */
export const randomOf = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/** Text that compression cannot shrink much: PostgreSQL would compress a row of equal letters to nothing. */
export const randomText = (length: number, random: () => number): string =>
  Array.from({ length }, () => letters[Math.floor(random() * letters.length)]).join("")
