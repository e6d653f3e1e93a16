/** What a scenario found, as it is printed. */
import type { Gaps, Violation } from "./Scenario.js"

/** `null`: of nothing. */
export interface Spread {
  readonly median: number | null
  readonly worst: number | null
}

export interface Result {
  readonly scenario: string
  readonly seed: number
  /** Acknowledged. */
  readonly runs: number
  readonly lost: number
  readonly doubleAccepted: number
  readonly early: number
  readonly overLimit: number
  /** `null`: nothing that one recovers from was done. */
  readonly recoveryMs: Spread
  readonly recoveries: ReadonlyArray<number>
  /** Where events are about some queues only; as `Gaps`. */
  readonly gapsMs?: { readonly its: Spread; readonly others: Spread; readonly before: Spread }
  /** The first `violationsToldMax`, and how many there are. */
  readonly violations: ReadonlyArray<Violation>
  readonly violationsTotal: number
  readonly durationMs: number
  /** Faults. */
  readonly events: number
  readonly notes: Readonly<Record<string, number | string>>
  readonly skipped?: string
}

export const violationsToldMax = 20

const countOf = (violations: ReadonlyArray<Violation>, name: string): number =>
  violations.filter(({ checker }) => checker === name).length

export const make = (found: {
  readonly scenario: string
  readonly seed: number
  readonly runs: number
  readonly recoveries: ReadonlyArray<number>
  readonly gaps: ReadonlyArray<Gaps>
  readonly violations: ReadonlyArray<Violation>
  readonly durationMs: number
  readonly events: number
  readonly notes: Readonly<Record<string, number | string>>
}): Result => ({
  scenario: found.scenario,
  seed: found.seed,
  runs: found.runs,
  lost: countOf(found.violations, "lost"),
  doubleAccepted: countOf(found.violations, "doubleAccepted"),
  early: countOf(found.violations, "early"),
  overLimit: countOf(found.violations, "overLimit"),
  recoveryMs: spread(found.recoveries),
  recoveries: found.recoveries.map(Math.round),
  ...(found.gaps.length === 0 ? {} : {
    gapsMs: {
      its: spread(found.gaps.flatMap(({ its }) => its ?? [])),
      others: spread(found.gaps.flatMap(({ others }) => others ?? [])),
      before: spread(found.gaps.map(({ before }) => before))
    }
  }),
  violations: found.violations.slice(0, violationsToldMax),
  violationsTotal: found.violations.length,
  durationMs: Math.round(found.durationMs),
  events: found.events,
  notes: found.notes
})

export const skipped = (scenario: string, seed: number, why: string): Result => ({
  ...make({ scenario, seed, runs: 0, recoveries: [], gaps: [], violations: [], durationMs: 0, events: 0, notes: {} }),
  skipped: why
})

export const spread = (values: ReadonlyArray<number>): Spread => {
  if (values.length === 0) return { median: null, worst: null }
  const sorted = [...values].sort((a, b) => a - b)
  return { median: Math.round(sorted[Math.floor(sorted.length / 2)]!), worst: Math.round(sorted[sorted.length - 1]!) }
}

export const isGood = ({ violationsTotal }: Result): boolean => violationsTotal === 0

/** Of several scenarios, one object. */
export const summary = (seed: number, results: ReadonlyArray<Result>) => {
  const sum = (field: "runs" | "lost" | "doubleAccepted" | "early" | "overLimit" | "durationMs" | "violationsTotal") =>
    results.reduce((total, each) => total + each[field], 0)
  return {
    scenario: "all",
    seed,
    runs: sum("runs"),
    lost: sum("lost"),
    doubleAccepted: sum("doubleAccepted"),
    early: sum("early"),
    overLimit: sum("overLimit"),
    recoveryMs: spread(results.flatMap(({ recoveries }) => recoveries)),
    violationsTotal: sum("violationsTotal"),
    durationMs: sum("durationMs"),
    scenarios: results.map(({ recoveryMs, runs, scenario, skipped, violationsTotal }) => ({
      scenario,
      runs,
      recoveryMs,
      violations: violationsTotal,
      ...(skipped === undefined ? {} : { skipped })
    }))
  }
}

const cell = (value: number | string | null, width: number) => String(value ?? "-").padStart(width)

export const tableHead = [
  "scenario".padEnd(20),
  ...["runs", "events", "median", "worst", "lost", "double", "early", "over", "other", "seconds"].map((each) =>
    each.padStart(8)
  )
].join("")

export const tableRow = (result: Result): string => {
  if (result.skipped !== undefined) return `${result.scenario.padEnd(20)}  skipped: ${result.skipped}`
  const { doubleAccepted, early, lost, overLimit, recoveryMs, violationsTotal } = result
  const other = violationsTotal - lost - doubleAccepted - early - overLimit
  return result.scenario.padEnd(20) + [
    result.runs,
    result.events,
    recoveryMs.median,
    recoveryMs.worst,
    lost,
    doubleAccepted,
    early,
    overLimit,
    other,
    Math.round(result.durationMs / 1_000)
  ].map((value) => cell(value, 8)).join("")
}
