/** What all measurements of one figure say together, and the verdict: how many times better than the best peer we are. */
import { type Better, isBetter, ratio, type Spread, spread } from "./statistics.js"
import { oursId, rawId } from "./systems/index.js"
import type { Measured } from "./Workload.js"

/** All rounds of one system. */
export interface Series {
  readonly values: ReadonlyArray<number>
  /** Of the last round. */
  readonly details: Measured["details"]
}

export interface Figure {
  readonly workload: string
  /** Of the case it comes from. */
  readonly title: string
  readonly unit: string
  readonly better: Better
  /** By system. */
  readonly all: Readonly<Record<string, Series>>
  /** Systems without a figure, and why. */
  readonly missing: Readonly<Record<string, string>>
}

/** One line of `--json`, exactly so. */
export interface Verdict {
  readonly workload: string
  readonly unit: string
  /** Our median. `null`: we have none. */
  readonly ours: number | null
  readonly bestPeer: string | null
  /** Its median. */
  readonly best: number | null
  /** How many times better than the best peer we are. */
  readonly ratio: number | null
  readonly all: Readonly<Record<string, Spread>>
}

/** Peers that may lose what they acknowledged are not here at all: they are refused before they are measured. */
export const verdict = (figure: Figure): Verdict => {
  const all = Object.fromEntries(
    Object.entries(figure.all).map(([id, { values }]) => [id, rounded(spread(values))] as const)
  )
  const peers = Object.entries(all).filter(([id]) => !id.startsWith(ours) && id !== rawId)
  const best = peers.reduce<(typeof peers)[number] | undefined>(
    (first, next) => first === undefined || isBetter(next[1].median, first[1].median, figure.better) ? next : first,
    undefined
  )
  const own = all[oursId]?.median ?? null
  return {
    workload: figure.workload,
    unit: figure.unit,
    ours: own,
    bestPeer: best?.[0] ?? null,
    best: best?.[1].median ?? null,
    ratio: own === null || best === undefined ? null : roundedOrNull(ratio(own, best[1].median, figure.better)),
    all
  }
}

const ours = oursId.slice(0, oursId.indexOf(":") + 1)

const roundedOrNull = (value: number | null): number | null => value === null ? null : round(value)

const rounded = ({ max, median, min, n }: Spread): Spread => ({
  median: round(median),
  min: round(min),
  max: round(max),
  n
})

/** Four digits: more would be noise. */
export const round = (value: number): number => Number(value.toPrecision(4))

/** `workload@x`: a point of a series, in which only the size of something changes. */
export const pointOf = (workload: string): { readonly series: string; readonly x: number } | undefined => {
  const at = workload.indexOf("@")
  return at < 0 ? undefined : { series: workload.slice(0, at), x: Number(workload.slice(at + 1)) }
}
